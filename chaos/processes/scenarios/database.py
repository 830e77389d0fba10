"""Takes Postgres away in three ways, and brings it back."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from benchmarks.gateway import get
from tests.servers import Postgres

from chaos.processes.check import Check, at_least, at_most, holds, none_of
from chaos.processes.clients import Answer, Clients, wait_until
from chaos.processes.scenarios.restarts import no_record_without, one_record_each
from chaos.processes.stage import Stage, records

PER_S = 5
HOLD_S = 10
FROZEN_S = 40
LONGEST_S = 21
"""The longest wait for a database that hangs, 20 s, and some time for the way to the client."""
BACK_S = 10


@contextmanager
def _stopped(postgres: Postgres) -> Iterator[None]:
    postgres.stop()
    try:
        yield
    finally:
        postgres.start()


@contextmanager
def _frozen(postgres: Postgres) -> Iterator[None]:
    postgres.pause()
    try:
        yield
    finally:
        postgres.resume()


@contextmanager
def _read_only(postgres: Postgres) -> Iterator[None]:
    def turn(value: str) -> None:
        postgres.run(f"ALTER SYSTEM SET default_transaction_read_only = {value}")
        postgres.run("SELECT pg_reload_conf()")

    turn("on")
    try:
        yield
    finally:
        turn("off")


def run(stage: Stage) -> Sequence[Check]:
    """Stop Postgres, make it read-only and freeze it, under load, and bring it back each time.

    The short form does not freeze it, because that is noticed only after 15 s.
    """
    hold_s = 0.5 if stage.is_short else HOLD_S
    checks = [
        *_outage(stage, "stopped", _stopped, hold_s),
        *_outage(stage, "read-only", _read_only, hold_s),
    ]
    if not stage.is_short:
        checks += _outage(stage, "frozen", _frozen, FROZEN_S)
    return checks


def _outage(stage: Stage, name: str, broken: Callable, hold_s: float) -> Sequence[Check]:
    replicas = stage.replicas()
    first, second = replicas.gateways
    key = first.new_key()
    with (
        Clients(first.url, key.secret, per_s=PER_S) as one,
        Clients(second.url, key.secret, per_s=PER_S) as two,
    ):
        wait_until(lambda: one.ids() and two.ids(), "there are no answers before the outage.")
        with broken(replicas.postgres):
            for clients in (one, two):
                wait_until(lambda: clients.statuses()[503], "there is no 503.")  # noqa: B023
            stage.wait(hold_s, f"Postgres is {name}")
            not_ready = not first.is_ready()
            is_alive = get(f"{first.url}/livez", timeout=10).is_success
        back_s = wait_until(lambda: first.is_ready() and second.is_ready(), "no way back.")
        answered = len(one.ids()), len(two.ids())
        wait_until(
            lambda: len(one.ids()) > answered[0] and len(two.ids()) > answered[1],
            "there are no answers after the outage.",
        )
    answers = [*one.answers, *two.answers]
    ids = one.ids() + two.ids()
    refused = [each for each in answers if each.status != 200]
    stage.say("waiting for the ledger to settle what was in doubt")
    wait_until(lambda: set(records(first, key)) <= set(ids), "a charge stays.", within_s=60)
    recorded = records(first, key)
    checks = [
        at_least("requests that got a 503", 1, len(refused), ""),
        none_of(
            "answers of another kind than 200 and 503 `storage_unavailable`",
            sum((each.status, each.id) != (503, "storage_unavailable") for each in refused),
            out_of=len(answers),
        ),
        none_of(
            "503 with neither `Retry-After` nor `x-should-retry: false`",
            sum(_says_nothing(each) for each in refused),
            out_of=len(refused),
        ),
        at_most(
            "longest wait for a 503",
            LONGEST_S,
            max(each.seconds for each in refused),
            " s",
            is_timing=True,
        ),
        holds("`/readyz` says no and `/livez` yes meanwhile", not_ready and is_alive),
        at_most("time until ready once Postgres is back", BACK_S, back_s, " s", is_timing=True),
        *one_record_each(ids, recorded),
        *no_record_without(ids, recorded),
    ]
    return [
        Check(f"{name}: {each.promise}", each.bound, each.measured, each.is_kept) for each in checks
    ]


def _says_nothing(answer: Answer) -> bool:
    return answer.wait_s is None and answer.may_retry
