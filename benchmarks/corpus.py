"""Makes texts for benchmarks: everyday words, in texts as long as people's queries and documents.

The same every time, so that runs can be compared.
"""

import math
import random
from collections.abc import Sequence
from typing import Literal

Kind = Literal["queries", "documents", "mix"]

MEDIAN_WORDS: dict[str, float] = {"queries": 11, "documents": 190}
SPREAD: dict[str, float] = {"queries": 0.55, "documents": 0.25}
"""The standard deviation of the logarithm of the words. Queries have 4 to 120 tokens, 15 in the
mean, and documents 70 to 251, 194 in the mean."""
MAX_WORDS = 225
QUERIES_OF_MIX = 0.8

EVERYDAY = """
the a to of and in is it for that on with as are this be at by from not or an was has have can
will one all more when how what which who their they we you your our its but if so up out into
over after before between under through during about against without within along account
address agreement answer archive article battery bicycle billing blanket bridge budget building
calendar camera candle carbon cathedral chapter cheese chemical children chocolate circuit
climate cluster coffee colour company compiler concert contract copper country courier customer
database deadline delivery dentist desert dictionary dinner director discount doctor document
dolphin driver earthquake economy electric elephant engine envelope evening exhibition factory
failure festival filter forest furniture garden gateway glacier government grammar guitar
harbour hospital hydrogen identity insurance invoice island journey kitchen laboratory language
latitude lawyer library lighthouse machine magazine manual market measure medicine meeting
membership memory merchant message microphone migration mountain museum network notebook
nutrition ocean office orchestra oxygen package painting passport password patient payment
pension pharmacy piano planet policy pressure printer privacy product protein provider quarter
railway recipe refund region rental replacement report restaurant return river rocket salary
satellite scholarship schedule science security service signature sister software station
storage subscription summer supplier surgery teacher telescope temperature theatre thermostat
ticket tourist traffic training translation transport turbine university upgrade vaccine vehicle
village vitamin volcano volume voltage warehouse warranty weather website weekend window winter
change find open close read write send keep make take give need want begin end fall rise move
slow quick large small old new early late warm cold clear broken empty full green heavy quiet
"""
WORDS = EVERYDAY.split()


def make_texts(kind: Kind, count: int, *, seed: int = 1) -> list[str]:
    """Return so many different texts."""
    chance = random.Random(f"{kind} {seed}")
    return [_text(chance, kind) for _ in range(count)]


def _text(chance: random.Random, kind: Kind) -> str:
    if kind == "mix":
        kind = "queries" if chance.random() < QUERIES_OF_MIX else "documents"
    drawn = chance.lognormvariate(math.log(MEDIAN_WORDS[kind]), SPREAD[kind])
    count = max(2, min(MAX_WORDS, round(drawn)))
    return " ".join(chance.choices(WORDS, k=count))


def make_requests(kind: Kind, count: int, *, texts: int) -> list[Sequence[str]]:
    """Return so many requests of so many texts each."""
    made = make_texts(kind, count * texts)
    return [made[start : start + texts] for start in range(0, len(made), texts)]
