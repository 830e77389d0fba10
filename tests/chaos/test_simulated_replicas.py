"""The simulation of `python -m chaos simulation`: its seeds pass, repeat, and can fail."""

import argparse
import asyncio
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog
from chaos.simulation import command, virtual_time
from chaos.simulation.database import SimulatedDatabase
from chaos.simulation.oracle import MAX_PARALLEL, RULES
from chaos.simulation.process import Process, ProcessLoop
from chaos.simulation.replica import Replica
from chaos.simulation.seed import simulate
from chaos.simulation.world import World
from sqlalchemy import Engine

from embedway.budgets.hold_store import HoldLease, HoldStore
from embedway.catalog.deployment import Deployment
from embedway.core.batch import Batch
from embedway.core.errors import RateLimitExceeded
from embedway.core.provider_error import ProviderError
from embedway.health.health import DeploymentHealth, HealthRegistry
from embedway.ledger.commits import CommitGroup, LedgerWriter
from embedway.pipeline.embed import Embedder
from embedway.pipeline.result import EmbedResult
from embedway.providers.adapters.openai import CountedReplyBody, OpenAi
from embedway.providers.provider import Provider
from embedway.providers.provider_config import ProviderConfig
from embedway.ratelimits.limiter import LimitKey, LimitReservation, RateLimiter
from embedway.sending.engine import EngineRegistry
from embedway.sending.sender import Sender
from embedway.spaces.prober import Prober
from embedway.storage.availability import DatabaseAvailability

ROOT = Path(__file__).parents[2]
DAY_MS = 86_400_000


@pytest.fixture(autouse=True)
def _silence() -> Iterator[None]:
    """The gateway logs every fault."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.configure(**before)


class ChangedWriter:
    """Changes what a ledger writer commits."""

    def __init__(self, writer: LedgerWriter) -> None:
        self.writer = writer
        self.status, self.close = writer.status, writer.close

    def commit(self, group: CommitGroup) -> None:
        self.writer.commit(group)


class DropsCommits(Replica):
    """Says that it has committed what it never wrote."""

    def build_writer(self, engine: Engine) -> LedgerWriter:
        class Dropping(ChangedWriter):
            def commit(self, group: CommitGroup) -> None:
                pass

        return Dropping(super().build_writer(engine))


class BillsTwice(Replica):
    """Records each answer under two ids."""

    def build_writer(self, engine: Engine) -> LedgerWriter:
        class Doubling(ChangedWriter):
            def commit(self, group: CommitGroup) -> None:
                super().commit(group)
                again = [msgspec.structs.replace(each, id=f"{each.id}2") for each in group.records]
                super().commit(msgspec.structs.replace(group, records=again))

        return Doubling(super().build_writer(engine))


class BillsTooMuch(Replica):
    """Charges a token more than there are."""

    def build_writer(self, engine: Engine) -> LedgerWriter:
        class Dear(ChangedWriter):
            def commit(self, group: CommitGroup) -> None:
                dearer = [
                    msgspec.structs.replace(each, tokens=each.tokens + (each.status == 200))
                    for each in group.records
                ]
                super().commit(msgspec.structs.replace(group, records=dearer))

        return Dear(super().build_writer(engine))


class ForgetsSums(Replica):
    """Writes records without adding them to the roll-ups."""

    def build_writer(self, engine: Engine) -> LedgerWriter:
        class Forgetful(ChangedWriter):
            def commit(self, group: CommitGroup) -> None:
                rows = [[] for _ in group.rollup_rows]
                super().commit(msgspec.structs.replace(group, rollup_rows=rows))

        return Forgetful(super().build_writer(engine))


class IgnoresIndices(Replica):
    """Takes vectors in the order in which they come."""

    def build_provider(self, config: ProviderConfig) -> Provider:
        class Body(CountedReplyBody):
            data: list[Any] = msgspec.field(default_factory=list)

            def read_vectors(self, batch: Batch) -> Sequence[Any]:
                return [each["embedding"] for each in self.data]

        class InAnyOrder(OpenAi):
            reply_body = Body

        provider = super().build_provider(config)
        provider._adapter = InAnyOrder(config.row, config.values)
        return provider


class ChecksNoSpaces(Replica):
    """Never looks whether an answer is from another model."""

    def build_prober(self, *parts: Any) -> Prober:
        prober = super().build_prober(*parts)
        prober.is_probed = lambda _: False
        return prober


class LetsAllIn(Replica):
    """Has rate limits and refuses nothing."""

    async def build_limiter(self) -> RateLimiter:
        limiter = await super().build_limiter()
        reserve = limiter.reserve

        async def let_in(keys: Sequence[LimitKey], *, tokens: int) -> LimitReservation:
            try:
                return await reserve(keys, tokens=tokens)
            except RateLimitExceeded:
                at_ms = int(self.now_s() * 1000)
                return LimitReservation(limit_keys=keys, tokens=tokens, at_ms=at_ms, statuses=())

        limiter.reserve = let_in
        limiter.check = lambda *_, **__: None
        return limiter


class GenerousHolds(HoldStore):
    """Holds as if every budget were a hundred times as large."""

    async def lease(self, subject: Any, budgets: Any, **more: Any) -> HoldLease:
        larger = [
            msgspec.structs.replace(each, amount_nano_usd=each.amount_nano_usd * 100)
            for each in budgets
        ]
        return await super().lease(subject, larger, **more)


class Overspends(Replica):
    """Holds more than there is of a budget."""

    def build_holds(self, engine: Engine, availability: DatabaseAvailability) -> HoldStore:
        return GenerousHolds(
            engine, process=self.process.name, now_ms=self.now_ms, availability=availability
        )


class MiserlyHolds(HoldStore):
    """Returns nothing."""

    async def release(self, subjects: Any) -> None:
        pass


class KeepsHolds(Replica):
    """Holds budgets for a day and never returns them."""

    def build_holds(self, engine: Engine, availability: DatabaseAvailability) -> HoldStore:
        return MiserlyHolds(
            engine, process=self.process.name, now_ms=lambda: self.now_ms() + DAY_MS,
            availability=availability,
        )  # fmt: skip


class Stubborn(Sender):
    """Repeats every failed call."""

    def _wait_s(self, error: Any, *_: Any) -> float | None:
        return 0.3 if isinstance(error, ProviderError) else None


class Repeats(Replica):
    """Repeats every failed call, however often it failed."""

    def build_sender(self, engines: EngineRegistry, healths: HealthRegistry) -> Sender:
        sender = super().build_sender(engines, healths)
        sender.__class__ = Stubborn
        return sender


class ImpatientHealth(DeploymentHealth):
    """Forgets every Retry-After."""

    def _rest(self, seconds: float, *, now_s: float) -> None:
        pass


class ImpatientHealths(HealthRegistry):
    """Makes such healths."""

    def get(self, deployment: Deployment) -> DeploymentHealth:
        health = super().get(deployment)
        health.__class__ = ImpatientHealth
        return health


class CallsEarly(Replica):
    """Calls providers before their Retry-After is over."""

    def build_healths(self) -> HealthRegistry:
        return ImpatientHealths(now_s=self.now_s)


class CallsInParallel(Replica):
    """Runs more calls of a request at a time than a provider allows."""

    def build_provider(self, config: ProviderConfig) -> Provider:
        limits = msgspec.structs.replace(config.limits, max_parallel=4 * MAX_PARALLEL)
        return super().build_provider(msgspec.structs.replace(config, limits=limits))


class Dawdles(Replica):
    """Has a deadline of two minutes."""

    def build_embedder(self, **parts: Any) -> Embedder:
        return Embedder(**parts, deadline_s=120.0, now_ms=self.now_ms)


class BrokenEmbedder(Embedder):
    """Has a defect."""

    async def embed(self, *arguments: Any, **more: Any) -> EmbedResult:
        result = await super().embed(*arguments, **more)
        if len(result.vectors) > 4:
            raise ZeroDivisionError
        return result


class Fails(Replica):
    """Answers some requests with a 500."""

    def build_embedder(self, **parts: Any) -> Embedder:
        return BrokenEmbedder(**parts, deadline_s=15.0, now_ms=self.now_ms)


class LeakyEmbedder(Embedder):
    """Leaves a task behind with each answer."""

    async def embed(self, *arguments: Any, **more: Any) -> EmbedResult:
        self.left = asyncio.ensure_future(asyncio.sleep(3600))
        return await super().embed(*arguments, **more)


class Leaks(Replica):
    """Leaves something of each request."""

    def build_embedder(self, **parts: Any) -> Embedder:
        return LeakyEmbedder(**parts, deadline_s=15.0, now_ms=self.now_ms)


WRONG: Sequence[tuple[str, type[Replica], int]] = [
    ("billing", DropsCommits, 1),
    ("billing", BillsTwice, 1),
    ("billing", BillsTooMuch, 1),
    ("sums", ForgetsSums, 1),
    ("vectors", IgnoresIndices, 1),
    ("vectors", ChecksNoSpaces, 28),
    ("limits", LetsAllIn, 1),
    ("budgets", Overspends, 1),
    ("holds", KeepsHolds, 1),
    ("retries", Repeats, 1),
    ("retry-after", CallsEarly, 16),
    ("parallel", CallsInParallel, 1),
    ("deadline", Dawdles, 44),
    ("status", Fails, 1),
    ("leftovers", Leaks, 1),
]
"""Each promise, a replica that breaks it, and the seed to try first."""


@pytest.mark.parametrize(
    ("rule", "replica", "seed"), WRONG, ids=[each[1].__name__ for each in WRONG]
)
def test_a_broken_promise_is_found(rule: str, replica: type[Replica], seed: int) -> None:
    """A replica with a wrong part is found in one of a hundred seeds, and mostly in the first."""
    seeds = (seed, *range(1, 100))
    assert any(
        rule in {each.rule for each in simulate(one, replica=replica).broken} for one in seeds
    )


def test_every_promise_can_be_broken() -> None:
    """No promise is checked without a test that its check can fail."""
    assert {rule for rule, _, _ in WRONG} == RULES.keys()


def chaos(*options: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m chaos` as the Makefile does, with hashes that no other process has."""
    return subprocess.run(
        [sys.executable, "-m", "chaos", *options], cwd=ROOT, capture_output=True, text=True,
        timeout=250, check=False, env=os.environ | {"PYTHONHASHSEED": "4711"},
    )  # fmt: skip


def test_many_seeds() -> None:
    """Seeds pass, on several cores, and the command says what ran."""
    ran = chaos("simulation", "--seeds", "16", "--jobs", "2")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "16 of 16 seeds" in ran.stdout
    assert "No seed(s) break a promise." in ran.stdout


def test_the_same_seed_does_the_same() -> None:
    """A seed has one trace, in every process and whatever its hashes are."""
    simulate(9)  # what ran before makes no difference
    trace = simulate(10).trace
    assert len(trace) > 100
    ran = chaos("--seed", "10")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.splitlines()[:-1] == trace


def test_a_closed_connection_locks_nothing() -> None:
    """A connection that closes within a transaction ends it, though its cursor is still in use."""

    def write(database: SimulatedDatabase) -> None:
        engine = database.open_engine()
        insert = "INSERT INTO installation (name, value) VALUES ('a', 'b')"
        first = engine.raw_connection()
        cursor = first.cursor()
        cursor.execute(insert + " RETURNING name")
        first.invalidate()
        with engine.begin() as connection:
            connection.exec_driver_sql(insert)
        del cursor

    async def run() -> None:
        database = SimulatedDatabase(World(1), "network")
        process = Process("one#1")
        try:
            await process.start(asyncio.to_thread(write, database))
        finally:
            process.kill()
            database.close()

    virtual_time.run(run(), loop_factory=ProcessLoop)


def test_interrupted() -> None:
    """Ctrl-C ends a run, which prints how many seeds it ran."""
    line = [sys.executable, "-m", "chaos", "simulation", "--seeds", "100000", "--jobs", "1"]
    with subprocess.Popen(
        line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("Running 100000 seeds from 1")
        process.send_signal(signal.SIGINT)
        said = process.stdout.read()
    assert process.returncode == 130
    assert "of 100000 seeds in" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("option", ["--seeds", "--jobs"])
@pytest.mark.parametrize("value", ["0", "-3", "many"])
def test_wrong_options(option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An option that makes no sense is refused with its name and value."""
    parser = argparse.ArgumentParser()
    command.add_to(parser.add_subparsers())
    with pytest.raises(SystemExit) as refusal:
        parser.parse_args(["simulation", f"{option}={value}"])
    assert refusal.value.code == 2
    assert f"argument {option}: {value!r} is no number of 1 or more" in capsys.readouterr().err
