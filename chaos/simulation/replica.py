"""A simulated replica: the gateway's real parts in a simulated process.

Its parts are those that `embedway.app` builds. Only the edges are simulated: clock, threads,
providers, Redis, database and tokenizer. Each part is made by a method of its own, so that a test
can build a replica with a wrong one.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from decimal import Decimal
from typing import Any

import msgspec
from sqlalchemy import Engine

from chaos.simulation.database import NetworkLedgerWriter, SimulatedDatabase
from chaos.simulation.process import Process, SimulatedThreads
from chaos.simulation.shared_count import SimulatedCounts, SimulatedRedis
from chaos.simulation.upstream import (
    EXACT,
    GUESS,
    PRICES_USD,
    REQUEST,
    WIDTHS,
    CallWatch,
    SimulatedTransport,
    Upstream,
)
from chaos.simulation.world import World
from embedway.budgets.enforcer import BudgetEnforcer
from embedway.budgets.hold_store import HoldStore
from embedway.catalog.catalog import Catalog, ProviderOffer
from embedway.catalog.deployment import Deployment
from embedway.catalog.lifetimes import ModelLifetimes
from embedway.catalog.model import DeploymentSpec, Model
from embedway.core.batch import BatchLimits
from embedway.core.errors import EmbedwayError
from embedway.core.keys import Caller
from embedway.core.request import EmbedRequest
from embedway.core.usage import UsageRecord
from embedway.health.health import HealthRegistry
from embedway.ledger.commits import LedgerWriter
from embedway.ledger.ledger import Ledger
from embedway.ledger.sqlite_writer import SqliteLedgerWriter
from embedway.metering.account import AccountFinder
from embedway.metering.meter import Meter
from embedway.organization.directory import Directory
from embedway.pipeline.embed import Embedder
from embedway.pipeline.result import EmbedResult
from embedway.providers.adapters.openai import OpenAi
from embedway.providers.credentials import StaticKeys
from embedway.providers.provider import Provider
from embedway.providers.provider_config import ProviderConfig, fingerprinter
from embedway.providers.registry import ROWS
from embedway.ratelimits.limiter import RateLimiter
from embedway.ratelimits.memory import MemoryRateLimiter
from embedway.ratelimits.shared import SharedRateLimiter
from embedway.routing.router import Router
from embedway.sending.engine import EngineRegistry
from embedway.sending.prepare import InputPreparer
from embedway.sending.sender import Sender
from embedway.spaces.membership import SpaceMemberships
from embedway.spaces.prober import Prober
from embedway.spaces.store import SpaceStore
from embedway.storage.availability import DatabaseAvailability

DEADLINE_S = 15.0
"""The deadline of a request."""
CANARY_INTERVAL_S = 60.0
MAX_PARALLEL = 3
"""The most calls of one request that may be in flight to one provider."""
MAX_ITEMS = {"alpha": 3, "beta": 4, "gamma": 8, "delta": 16}
"""The most items in one call, by provider."""
SERVES = {"alpha": (EXACT,), "beta": (EXACT, GUESS), "gamma": (EXACT,), "delta": (GUESS,)}
CLOSE_S = 20.0
"""How long a replica that stops waits for the database, as `embedway serve` does."""


class Tokens:
    """Counts tokens as the model `EXACT` does."""

    async def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return token ids for each text."""
        return [[1] * (len(text) // 3 + 1) for text in texts]

    async def decode(self, items: Sequence[Sequence[int]]) -> list[str]:
        """Fail, because no request has token ids."""
        raise NotImplementedError


class Edges(msgspec.Struct, frozen=True):
    """What a replica is connected to."""

    world: World
    database: SimulatedDatabase
    redis: SimulatedRedis | None
    upstreams: dict[str, Upstream]
    watch: CallWatch
    watch_limiter: Callable[["Replica", RateLimiter], RateLimiter]
    """Returns a limiter that tells what it lets in."""


class Replica:
    """One process of the gateway, from its start to its end."""

    def __init__(self, edges: Edges, name: str, *, skew_ms: int) -> None:
        """Build nothing until `start`.

        Args:
            edges: What it is connected to.
            name: Its machine and how often it was started, as `one#1`.
            skew_ms: How far its wall clock is ahead, in ms.
        """
        self.edges = edges
        self.world = edges.world
        self.process = Process(name)
        self.skew_ms = skew_ms
        self.is_ready = False
        self.is_stopped = False
        self.ended = asyncio.Event()
        """Set once it has ended, however it did."""
        self.exchanges: dict[Any, asyncio.Future[Any]] = {}
        """The requests in progress, each with what its client waits for."""

    # The parts.

    def now_ms(self) -> int:
        """Return what its wall clock shows."""
        return self.world.now_ms() + self.skew_ms

    def now_s(self) -> float:
        """Return its monotonic clock."""
        return self.world.loop.time()

    def build_writer(self, engine: Engine) -> LedgerWriter:
        """Return the ledger's writer."""
        kind = SqliteLedgerWriter if self.edges.database.kind == "sqlite" else NetworkLedgerWriter
        return kind(engine, process=self.process.name)

    def build_holds(self, engine: Engine, availability: DatabaseAvailability) -> HoldStore:
        """Return the store of budget holds."""
        return HoldStore(
            engine, process=self.process.name, now_ms=self.now_ms, availability=availability
        )

    async def build_limiter(self) -> RateLimiter:
        """Return the rate limiter: shared if there is a Redis."""
        redis = self.edges.redis
        if redis is None:
            return MemoryRateLimiter(now_ms=lambda: int(self.now_s() * 1000))
        limiter = SharedRateLimiter(
            SimulatedCounts(redis, self.process.name),
            now_s=self.now_s,
            now_ms=self.now_ms,
            on_sharing_change=lambda why: self.world.note(f"limits: {why or 'counted together'}"),
        )
        await limiter.start()
        return limiter

    def build_sender(self, engines: EngineRegistry, healths: HealthRegistry) -> Sender:
        """Return the sender."""
        preparer = InputPreparer(tokenizers={}, cl100k=Tokens())
        return Sender(engines, healths=healths, preparer=preparer)

    def build_healths(self) -> HealthRegistry:
        """Return the health of all deployments."""
        return HealthRegistry(
            now_s=self.now_s,
            on_ejected=lambda each, _: self.world.note(f"ejects {each.id}"),
            uniform=self._chance.uniform,
        )

    def build_prober(
        self, spaces: SpaceMemberships, store: SpaceStore, sender: Sender, ledger: Ledger
    ) -> Prober:
        """Return the prober."""

        async def record(record: UsageRecord) -> None:
            with suppress(EmbedwayError):
                await ledger.append([record])

        return Prober(
            spaces=spaces,
            store=store,
            sender=sender,
            on_event=lambda what, each, _: self.world.note(f"{each.id} is {what}"),
            record=record,
        )

    async def start(self) -> None:
        """Build all parts and get ready.

        Raises:
            StorageUnavailable: The database cannot be reached.
        """
        edges, now_s, now_ms = self.edges, self.now_s, self.now_ms
        self._chance = self.world.chance(f"replica {self.process.name}")
        availability = DatabaseAvailability()
        self.engine = engine = edges.database.open_engine()
        self.ledger = Ledger(
            engine,
            process=self.process.name,
            availability=availability,
            writer=self.build_writer(engine),
            threads=SimulatedThreads(self.world.loop),
        )
        directory = Directory(engine, availability=availability)
        self.holds = self.build_holds(engine, availability)
        self.budgets = BudgetEnforcer(
            self.holds,
            now_ms=now_ms,
            on_alert=lambda alert: self.world.note(
                f"{alert.subject} "
                + ("is exhausted" if alert.is_exhausted else f"has spent {alert.percent}%")
            ),
        )
        configs = [provider_config(each) for each in PRICES_USD]
        engines = {each.name: self.build_provider(each) for each in configs}
        deployments = [
            Deployment(model, spec) for model in MODELS.values() for spec in model.deployments
        ]
        catalog = Catalog(
            deployments,
            offers=[
                ProviderOffer(provider=name, kind=name, unlisted=DeploymentSpec(provider=name))
                for name in engines
            ],
            auto=EXACT,
        )
        self.healths = self.build_healths()
        spaces = SpaceMemberships(
            policy=catalog.policy,
            deployments=deployments,
            enabled=True,
            interval_s=CANARY_INTERVAL_S,
            fingerprint=fingerprinter(configs),
            now_ms=now_ms,
        )
        self.deployments = deployments
        registry = EngineRegistry(engines)
        self.sender = self.build_sender(registry, self.healths)
        self.prober = self.build_prober(
            spaces, SpaceStore(engine, availability=availability), self.sender, self.ledger
        )
        await self.prober.load()
        self._own_limiter = await self.build_limiter()
        self.embedder = self.build_embedder(
            router=Router(
                catalog=catalog,
                lifetimes=ModelLifetimes(deployments, now_ms=now_ms),
                spaces=spaces,
                healths=self.healths,
                abilities=registry.abilities,
                now_s=now_s,
                random=self._chance,
            ),
            prober=self.prober,
            sender=self.sender,
            meter=Meter(
                accounts=AccountFinder(directory),
                limiter=edges.watch_limiter(self, self._own_limiter),
                budgets=self.budgets,
            ),
            ledger=self.ledger,
        )
        self.is_ready = True
        self.world.note("ready")

    def build_embedder(self, **parts: Any) -> Embedder:
        """Return the embedder."""
        return Embedder(**parts, deadline_s=DEADLINE_S, now_ms=self.now_ms)

    def build_provider(self, config: ProviderConfig) -> Provider:
        """Return the provider of a configuration."""
        row = config.row
        return Provider(
            config,
            adapter=OpenAi(row, config.values),
            float_adapter=OpenAi(row.without_base64(), config.values),
            credentials=StaticKeys(config.keys, now_s=self.now_s),
            transport=SimulatedTransport(self.edges.upstreams[config.name], self.edges.watch),
        )

    # Its life.

    def serve(
        self, exchange: Any, request: EmbedRequest, caller: Caller
    ) -> asyncio.Future[EmbedResult]:
        """Take a request. The future has what the client receives, or fails.

        Raises:
            ConnectionError: The replica takes no requests.
        """
        if not (self.is_ready and self.process.is_alive):
            raise ConnectionRefusedError
        reply: asyncio.Future[EmbedResult] = self.world.loop.create_future()
        self.exchanges[exchange] = reply
        context = self.process.context.copy()
        context.run(REQUEST.set, exchange)
        task = self.process.start(self._answer(exchange, request, caller, reply), context=context)

        def left(reply: asyncio.Future[EmbedResult]) -> None:
            if reply.cancelled():
                task.cancel()

        reply.add_done_callback(left, context=self.process.context.copy())
        return reply

    async def _answer(
        self, exchange: Any, request: EmbedRequest, caller: Caller, reply: asyncio.Future[Any]
    ) -> None:
        result = failure = None
        try:
            account = await self.embedder.admit(caller, body_bytes=None)
            result = await self.embedder.embed(
                request, caller, admitted=account, request_id=f"{exchange}", started_s=0.0
            )
        except Exception as error:  # noqa: BLE001  # the edge, where a defect becomes a 500
            failure = error
        finally:
            self.exchanges.pop(exchange, None)
        if reply.done():
            return
        if failure is not None:
            reply.set_exception(failure)
        else:
            reply.set_result(result)

    def kill(self) -> None:
        """End at once, as by `kill -9`."""
        if not self.process.is_alive:
            return
        self.world.note(f"{self.process.name} is killed")
        replies = [*self.exchanges.values()]
        self.process.kill()
        self.ended.set()
        for reply in replies:
            if not reply.done():
                reply.set_exception(ConnectionResetError())

    async def stop(self) -> None:
        """Finish the requests in progress and close all parts, in the order of `embedway.app`."""
        self.is_ready = False
        self.world.note("drains")
        while self.exchanges:
            await asyncio.wait(self.exchanges.values())
            await asyncio.sleep(0)
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await self.embedder.aclose()
                if isinstance(self._own_limiter, SharedRateLimiter):
                    await self._own_limiter.aclose()
                await self.prober.aclose()
                await self.budgets.aclose()
                await self.world.loop.run_in_executor(None, self._close)
        self.is_stopped = True
        self.world.note("ends")
        self.ended.set()

    def _close(self) -> None:
        self.holds.close()
        self.ledger.close()
        self.engine.dispose()


def provider_config(name: str) -> ProviderConfig:
    """Return the configuration of a provider; `gamma` has two keys."""
    limits = BatchLimits(max_items=MAX_ITEMS[name], max_parallel=MAX_PARALLEL)
    keys = [f"sk-{name}-1", f"sk-{name}-2"] if name == "gamma" else [f"sk-{name}"]
    return ProviderConfig(name=name, row=ROWS["openai"], keys=keys, limits=limits)


def _model(id: str) -> Model:
    return Model(
        id=id,
        dimensions=WIDTHS[id],
        normalised=True if id == EXACT else None,
        tokenizer="cl100k_base" if id == EXACT else "unknown",
        pooling="mean",
        deployments=[
            DeploymentSpec(provider=name, price_per_mtok_usd=Decimal(str(PRICES_USD[name])))
            for name, serves in SERVES.items()
            if id in serves
        ],
    )


MODELS = {id: _model(id) for id in (EXACT, GUESS)}
