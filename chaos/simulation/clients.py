"""Simulates clients: projects with limits and budgets, whose requests are retried.

They retry as OpenAI's Python client does, and sometimes leave early.
"""

import asyncio
from collections.abc import Callable, Sequence
from random import Random

from chaos.simulation.oracle import Exchange, Oracle
from chaos.simulation.replica import Replica
from chaos.simulation.upstream import EXACT, GUESS, POISON
from embedway.core.budget import Budget
from embedway.core.errors import EmbedwayError
from embedway.core.keys import Caller, Key
from embedway.core.limit import Limit
from embedway.core.project import Project
from embedway.core.request import EmbedRequest
from embedway.core.subject import Subject

MAX_RETRIES = 2
FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 8.0
LONGEST_RETRY_AFTER_S = 60.0
RETRIED = frozenset({408, 409, 429})
SERVER_ERROR = 500
TYPICAL_NANO_USD = 150_000
"""About what a request costs."""


def draw_callers(chance: Random) -> Sequence[Caller]:
    """Draw the keys of two or three projects, with their limits and budgets."""
    callers: list[Caller] = []
    for number in range(chance.choice((2, 3))):
        project_id = f"proj_{number}"
        project = Project(
            id=project_id,
            name=project_id,
            created_ms=0,
            limits=_draw_limits(chance),
            budgets=_draw_budgets(chance, 12),
            user_limits=_draw_limits(chance),
            user_budgets=_draw_budgets(chance, 4),
        )
        has_end_users = chance.random() < 0.3
        for letter in "ab"[: chance.choice((1, 2))]:
            key = Key(
                id=f"key_{number}{letter}",
                project_id=project_id,
                name=letter,
                digest=b"",
                hint="",
                scopes=("embeddings",),
                created_ms=0,
                limits=_draw_limits(chance),
                budgets=_draw_budgets(chance, 8),
            )
            callers.append(
                Caller(
                    key_id=key.id,
                    project=project,
                    keys=(key,),
                    scopes=frozenset(("embeddings",)),
                    has_end_users=has_end_users,
                )
            )
    return callers


def _draw_limits(chance: Random) -> tuple[Limit, ...]:
    if chance.random() < 0.6:
        return ()
    limits = [
        Limit(of="requests", amount=chance.choice((1, 2, 5)), per="second"),
        Limit(of="requests", amount=chance.choice((3, 8, 20)), per="minute"),
        Limit(of="tokens", amount=chance.choice((60, 300, 1000)), per="minute"),
        Limit(of="tokens", amount=chance.choice((60, 200)), per="second"),
    ]
    return tuple(chance.sample(limits, chance.choice((1, 1, 2))))


def _draw_budgets(chance: Random, requests: int) -> tuple[Budget, ...]:
    if chance.random() < 0.5:
        return ()
    amount = int(TYPICAL_NANO_USD * requests * chance.lognormvariate(0, 0.8))
    return (
        Budget(amount_nano_usd=amount, per=chance.choice(("day", "day", "total")), alerts=(50,)),
    )


def subjects(caller: Caller, user: str | None) -> dict[Subject, Sequence[Budget]]:
    """Return the subjects of a request that have budgets."""
    project = caller.project
    assert project is not None
    found = {Subject(kind="project", id=project.id, project_id=project.id): project.budgets}
    for key in caller.keys:
        found[Subject(kind="key", id=key.id, project_id=project.id)] = key.budgets
    if user:
        subject = Subject(kind="end user", id=user, project_id=project.id)
        found[subject] = project.user_budgets
    return {subject: budgets for subject, budgets in found.items() if budgets}


def draw_request(chance: Random, user: str | None) -> EmbedRequest:
    """Draw a request of one or several different texts."""
    count = chance.choice((1, 1, 1, 2, 3, 5, 8, 12))
    texts = [
        f"text {number} ".ljust(chance.randrange(9, 40), "x")
        for number in chance.sample(range(100), count)
    ]
    if chance.random() < 0.03:
        at = chance.randrange(count)
        texts[at] = f"{POISON} {texts[at]}"
    names = (EXACT, EXACT, EXACT, GUESS, f"alpha:{EXACT}", f"delta:{GUESS}")
    return EmbedRequest(
        input=texts,
        model=chance.choice(names),
        user=user,
        preference=chance.choice(("cost", "speed", "balanced")),
    )


class Client:
    """One client. It sends one request after another."""

    def __init__(
        self,
        caller: Caller,
        *,
        chance: Random,
        oracle: Oracle,
        replicas: Callable[[], Sequence[Replica]],
        number: Callable[[], int],
        may_go_on: Callable[[], bool],
    ) -> None:
        """Send requests of `caller` to the replicas that are there.

        Args:
            caller: The key it has.
            chance: Its random numbers.
            oracle: Watches what it gets.
            replicas: Returns the replicas that take requests.
            number: Returns the number of the next request.
            may_go_on: Returns whether to begin another request.
        """
        self._caller = caller
        self._chance = chance
        self._oracle = oracle
        self._replicas = replicas
        self._number = number
        self._may_go_on = may_go_on

    async def run(self, requests: int, *, pause_s: float) -> None:
        """Send so many requests, with pauses of that mean length."""
        chance = self._chance
        for _ in range(requests):
            await asyncio.sleep(chance.expovariate(1 / pause_s))
            if not self._may_go_on():
                return
            user = chance.choice((None, None, "alice", "bob"))
            request = draw_request(chance, user)
            await self._send_with_retries(request, user)

    async def _send_with_retries(self, request: EmbedRequest, user: str | None) -> None:
        """Send a request as OpenAI's client does; a few clients leave early."""
        chance = self._chance
        patience_s = chance.uniform(0.0, 2.0) if chance.random() < 0.08 else None
        for tries in range(1, MAX_RETRIES + 2):
            wait_s = await self._send(request, user, patience_s)
            if wait_s is None or tries > MAX_RETRIES:
                return
            if not 0 < wait_s <= LONGEST_RETRY_AFTER_S:
                longest_s = min(FIRST_WAIT_S * 2 ** (tries - 1), LONGEST_WAIT_S)
                wait_s = longest_s * chance.uniform(0.75, 1.0)
            await asyncio.sleep(wait_s)

    async def _send(
        self, request: EmbedRequest, user: str | None, patience_s: float | None
    ) -> float | None:
        """Send a request once; return how long to wait before a retry, 0 if unknown, or None."""
        replicas = self._replicas()
        if not replicas:
            return 0.0
        replica = self._chance.choice(replicas)
        exchange = Exchange(self._number(), request, subjects(self._caller, user))
        oracle = self._oracle
        oracle.sent(exchange, replica)
        reply = None
        try:
            reply = replica.serve(exchange, request, self._caller)
            async with asyncio.timeout(patience_s):
                result = await reply
        except TimeoutError:
            oracle.left(exchange)
            return None
        except ConnectionError:
            oracle.lost(exchange)
            return 0.0
        except Exception as error:  # noqa: BLE001  # whatever the client receives
            oracle.refused(exchange, error)
            return _wait_s(error)
        oracle.answered(exchange, result)
        return None


def _wait_s(error: Exception) -> float | None:
    if not isinstance(error, EmbedwayError):
        return 0.0
    headers = error.headers
    if headers.get("x-should-retry") == "false":
        return None
    if error.status not in RETRIED and error.status < SERVER_ERROR:
        return None
    if "retry-after-ms" in headers:
        return float(headers["retry-after-ms"]) / 1000
    return float(headers.get("retry-after", 0))
