"""Opens what lives as long as the process, whatever its configuration becomes, and closes it."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Protocol

import msgspec

from embedway.admin.configuration import Reload
from embedway.api.admission import Admission
from embedway.auth.authenticator import Authenticator
from embedway.auth.tokens import GatewayTokens
from embedway.batches.store import BatchStore
from embedway.budgets.enforcer import BudgetEnforcer
from embedway.budgets.hold_store import HoldStore
from embedway.catalog.model import Model
from embedway.concurrency.ttl_cache import TTLCache
from embedway.config.engines import load_engine, load_tokenizer
from embedway.config.settings import Settings
from embedway.config.stores import open_configured_store, reveal
from embedway.core import clock, extras, ids
from embedway.core.errors import ServiceOverloaded
from embedway.core.keys import KeyContext
from embedway.events.deliverer import Deliverer
from embedway.events.outbox import Outbox
from embedway.files.objects import ObjectStore
from embedway.files.store import FileStore
from embedway.health.health import HealthRegistry
from embedway.ledger.activity_reader import ActivityReader
from embedway.ledger.ledger import Ledger
from embedway.ledger.refusals import RefusalStore
from embedway.ledger.reports import UsageReports
from embedway.local.engine import MAX_WAITING_TOKENS, LocalEngine, TokenizerThread
from embedway.local.remote import ConnectedModel, ModelConnection
from embedway.metering.account import AccountFinder
from embedway.metering.meter import Meter
from embedway.observe import events
from embedway.observe.loop_lag import LoopLagMeter
from embedway.observe.metric_sums import Snapshot
from embedway.observe.metrics import Metrics
from embedway.observe.otlp import open_tracer
from embedway.observe.otlp_options import OtlpOptions
from embedway.observe.refusals import RefusalCounts
from embedway.observe.tracing import ProviderAddress, Tracer
from embedway.organization.directory import Directory
from embedway.ratelimits.limiter import RateLimiter
from embedway.ratelimits.memory import MemoryRateLimiter
from embedway.ratelimits.shared import SharedRateLimiter
from embedway.ratelimits.workers import WorkersRateLimiter
from embedway.sending.retries import RetryBudget
from embedway.spaces.store import SpaceStore
from embedway.storage.availability import DatabaseAvailability
from embedway.storage.store import Store
from embedway.tokenizing.cl100k import Cl100kTokenizer

FILES = "files"
"""The name of the folder of files in the data folder."""


class Clocks(msgspec.Struct, frozen=True, kw_only=True):
    """The clocks of a gateway."""

    now_ms: Callable[[], int] = clock.now_ms
    """The wall clock, in ms since the epoch."""
    now_s: Callable[[], float] = time.monotonic
    """A monotonic clock for waits and deadlines, in seconds."""


class Siblings(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker shares with the other workers of its gateway."""

    workers: int
    """How many workers there are."""
    memory: int
    """The descriptor of the memory in which they count rate limits together."""
    models: str | None
    """The path of the socket of the process that runs the local models; None if there are none."""
    collect_metrics: Callable[[], Awaitable[Sequence[Snapshot]]]
    """Returns the metrics of all processes of the gateway."""
    reload: Reload
    """Reloads the configuration of all workers, or of none."""


class ProcessParts(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of a gateway that every configuration uses, and that know what happened so far."""

    clocks: Clocks
    metrics: Metrics
    tracer: Tracer | None
    """Follows requests; None if no spans are wanted."""
    addresses: dict[str, ProviderAddress]
    """The address of each provider by its name, for spans."""
    store: Store
    ledger: Ledger
    refusals: RefusalCounts
    tokens: GatewayTokens
    authenticator: Authenticator
    admission: Admission
    meter: Meter
    healths: HealthRegistry
    retry_budget: RetryBudget
    space_store: SpaceStore
    activity: ActivityReader
    deliverer: Deliverer
    files: FileStore
    max_project_file_bytes: int
    """The most bytes of all files of a project."""
    batches: BatchStore
    local_engines: Mapping[str, LocalEngine]
    """The models that run on this machine, by model id."""
    cl100k: Cl100kTokenizer
    workers: int
    """How many processes serve the same port, each with an equal part of what may be in flight."""
    check_ready: Callable[[], Awaitable[None]]
    """Raises an `EmbedwayError` while no traffic should come."""


@asynccontextmanager
async def open_process(
    settings: Settings,
    local_models: Sequence[Model],
    *,
    clocks: Clocks,
    dropped_lines: Callable[[], int],
    telemetry: OtlpOptions | None,
    siblings: Siblings | None = None,
) -> AsyncGenerator[ProcessParts]:
    """Open the parts; leaving the context finishes what is waiting and closes them.

    Args:
        settings: The settings at the start.
        local_models: The models to load.
        clocks: The clocks of the gateway.
        dropped_lines: Returns how many log lines were dropped so far.
        telemetry: Where to send spans and metrics; None to send none.
        siblings: What this process shares with others on its port; None if it is the only one.
    """
    metrics, now_ms, now_s = Metrics(), clocks.now_ms, clocks.now_s
    if siblings is not None:
        metrics.collect_all = siblings.collect_metrics
    addresses: dict[str, ProviderAddress] = {}
    async with AsyncExitStack() as parts:
        tracer = await parts.enter_async_context(open_tracer(telemetry, metrics, addresses))
        store = await asyncio.to_thread(open_configured_store, settings, create=True)
        parts.callback(store.database.dispose)
        outbox, deliverer = _open_deliverer(store, metrics, parts, now_ms=now_ms)
        process = ids.new_id("proc")
        ledger = Ledger(
            store.database,
            process=process,
            availability=store.availability,
            is_shared=siblings is not None,
        )
        parts.callback(ledger.close)
        directory = Directory(store.database, availability=store.availability)
        refusals = _refusals(store, parts, now_ms=now_ms)
        activity = ActivityReader(
            UsageReports(store.database), availability=store.availability, now_ms=now_ms
        )
        parts.callback(activity.close)
        cl100k = Cl100kTokenizer()
        parts.callback(cl100k.close)
        engines = await _open_models(local_models, settings, metrics, parts, siblings=siblings)
        # The web framework keeps references after the gateway is closed: free the models.
        parts.callback(engines.clear)
        healths = HealthRegistry(
            now_s=now_s,
            on_ejected=partial(events.report_ejection, metrics, deliverer.publish),
            on_recovered=partial(events.report_recovery, deliverer.publish),
        )
        holds = HoldStore(
            store.database, process=process, now_ms=now_ms, availability=store.availability
        )
        parts.callback(holds.close)
        budgets = BudgetEnforcer(
            holds,
            now_ms=now_ms,
            on_alert=partial(events.log_budget_alert, metrics),
            write_alert=partial(events.write_budget_alert, outbox),
        )
        parts.push_async_callback(budgets.aclose)
        meter = Meter(
            accounts=AccountFinder(directory),
            limiter=await _limiter(
                settings,
                metrics,
                parts,
                publish=deliverer.publish,
                now_s=now_s,
                siblings=siblings,
            ),
            budgets=budgets,
        )
        files = FileStore(
            store.database,
            ObjectStore(settings.file_store or settings.data_dir / FILES),
            now_ms=now_ms,
            availability=store.availability,
        )
        parts.callback(files.close)
        batches = BatchStore(
            store.database, worker=process, now_ms=now_ms, availability=store.availability
        )
        parts.callback(batches.close)
        tokens = GatewayTokens(pepper=store.pepper, audiences=settings.token_audiences)
        admission = Admission(
            max_requests=settings.max_in_flight, max_bytes=settings.max_in_flight_bytes
        )
        _add_gauges(metrics, admission, ledger, healths, store.availability, dropped_lines)
        parts.callback(LoopLagMeter(metrics.loop_lag.observe).close)
        yield ProcessParts(
            clocks=clocks,
            metrics=metrics,
            tracer=tracer,
            addresses=addresses,
            store=store,
            ledger=ledger,
            refusals=refusals,
            tokens=tokens,
            authenticator=Authenticator(
                directory, pepper=store.pepper, now_ms=now_ms, tokens=tokens
            ),
            admission=admission,
            meter=meter,
            healths=healths,
            retry_budget=RetryBudget(),
            space_store=SpaceStore(
                store.database,
                availability=store.availability,
                on_change=partial(events.write_space_change, outbox),
            ),
            activity=activity,
            deliverer=deliverer,
            files=files,
            max_project_file_bytes=settings.max_project_file_bytes,
            batches=batches,
            local_engines=engines,
            cl100k=cl100k,
            workers=siblings.workers if siblings else 1,
            check_ready=partial(
                _check_ready,
                admission,
                ledger,
                engines,
                keys=TTLCache(directory.find_key_by_digest),
                commits=TTLCache(lambda _: ledger.try_commit()),
            ),
        )


async def _check_ready(
    admission: Admission,
    ledger: Ledger,
    engines: Mapping[str, LocalEngine],
    *,
    keys: TTLCache[bytes, KeyContext | None],
    commits: TTLCache[bytes, None],
) -> None:
    if admission.is_draining and not admission.is_replaced:
        raise ServiceOverloaded("This gateway is stopping. Send requests elsewhere.")
    if not (ledger.is_alive and all(engine.alive for engine in engines.values())):
        raise ServiceOverloaded("A worker has died. Restart this gateway.")
    await keys.get(b"")
    if ledger.is_failing:  # with no requests, nothing else shows that the database is back
        await commits.get(b"")


async def _open_models(
    models: Sequence[Model],
    settings: Settings,
    metrics: Metrics,
    parts: AsyncExitStack,
    *,
    siblings: Siblings | None,
) -> dict[str, LocalEngine]:
    """Load the local models, or connect to the process that has loaded them for all workers."""
    if not models:
        return {}
    engines: dict[str, LocalEngine] = {}
    if siblings and siblings.models:
        connection = ModelConnection(siblings.models)
        parts.push_async_callback(connection.aclose)
        await connection.open()
        for model in models:
            tokenizer = TokenizerThread(await asyncio.to_thread(load_tokenizer, model, settings))
            engine = LocalEngine(tokenizer, ConnectedModel(model.id, connection))
            parts.callback(engine.close)
            engines[model.id] = engine
        return engines
    for model in models:
        on_batch = metrics.batch_items.labels(model.id).observe
        engine = await asyncio.to_thread(load_engine, model, settings, on_batch=on_batch)
        parts.callback(engine.close)
        engines[model.id] = engine
    add_queue_gauges(metrics, engines)
    return engines


def add_queue_gauges(metrics: Metrics, models: Mapping[str, "_HasQueue"]) -> None:
    """Add the gauges of what waits for the models of this process."""
    metrics.add_gauge(
        "embedway_queue_tokens",
        "Tokens that wait for a local model.",
        lambda: sum(each.waiting_tokens for each in models.values()),
    )
    metrics.add_gauge(
        "embedway_queue_tokens_max",
        "The most tokens that may wait for all local models together.",
        lambda: MAX_WAITING_TOKENS * len(models),
    )


class _HasQueue(Protocol):
    """A model for which tokens wait."""

    @property
    def waiting_tokens(self) -> int:
        """The tokens that wait."""
        ...


async def _limiter(
    settings: Settings,
    metrics: Metrics,
    parts: AsyncExitStack,
    *,
    publish: events.Publish,
    now_s: Callable[[], float],
    siblings: Siblings | None,
) -> RateLimiter:
    """Count together with the other replicas if Redis is set, else with the other workers."""
    url = reveal(settings.redis_url)
    if url is None and siblings:
        return WorkersRateLimiter(siblings.memory)
    if url is None:
        return MemoryRateLimiter(now_ms=lambda: int(now_s() * 1000))
    with extras.importing("redis", "Redis (EMBEDWAY_REDIS_URL)"):
        from embedway.ratelimits.redis_counts import RedisCounts  # noqa: PLC0415  # slow to import

    limiter = SharedRateLimiter(
        RedisCounts(url),
        now_s=now_s,
        on_sharing_change=partial(events.report_limits_sharing, publish),
    )
    parts.push_async_callback(limiter.aclose)
    metrics.add_gauge(
        "embedway_limits_shared",
        "1 while limits are counted with the other replicas; 0 while Redis is away and each takes "
        "its share.",
        lambda: limiter.is_shared,
        combine="min",
    )
    await limiter.start()
    return limiter


def _open_deliverer(
    store: Store, metrics: Metrics, parts: AsyncExitStack, *, now_ms: Callable[[], int]
) -> tuple[Outbox, Deliverer]:
    """Open what delivers events; each configuration says to whom."""
    outbox = Outbox(store.database, now_ms=now_ms, availability=store.availability)
    parts.callback(outbox.close)
    deliverer = Deliverer(outbox, on_result=metrics.count_delivery)
    parts.push_async_callback(deliverer.aclose)
    store.availability.on_outage = partial(events.report_outage, deliverer.publish_unstored)
    metrics.add_gauge(
        "embedway_webhook_deliveries_waiting",
        "Deliveries of events to webhooks that wait in the database.",
        lambda: deliverer.waiting,
        combine="max",  # each process counts all
    )
    return outbox, deliverer


def _refusals(store: Store, parts: AsyncExitStack, *, now_ms: Callable[[], int]) -> RefusalCounts:
    refusal_store = RefusalStore(store.database, availability=store.availability)
    parts.callback(refusal_store.close)
    counts = RefusalCounts(refusal_store, now_ms=now_ms)
    parts.push_async_callback(counts.aclose)
    return counts


def _add_gauges(
    metrics: Metrics,
    admission: Admission,
    ledger: Ledger,
    healths: HealthRegistry,
    availability: DatabaseAvailability,
    dropped_lines: Callable[[], int],
) -> None:
    metrics.add_counter(
        "embedway_log_lines_dropped",
        "Lines of the log that could not be written, or that nobody read in time.",
        dropped_lines,
    )
    gauge = metrics.add_gauge
    gauge(
        "embedway_deployments_ejected",
        "Deployments that get no requests now, because calls to them failed.",
        lambda: sum(each.state == "ejected" for each in healths.statuses()),
        combine="max",
    )
    gauge(
        "embedway_models_ejected",
        "Models of which every deployment is ejected.",
        lambda: len(healths.ejected_models()),
        combine="max",
    )
    gauge("embedway_requests_in_flight", "Requests being answered.", lambda: admission.requests)
    gauge(
        "embedway_requests_in_flight_max",
        "The most requests that may be in flight.",
        lambda: admission.max_requests,
    )
    gauge("embedway_in_flight_bytes", "Bytes of their bodies and answers.", lambda: admission.bytes)
    gauge(
        "embedway_in_flight_bytes_max",
        "The most bytes that may be in flight.",
        lambda: admission.max_bytes,
    )
    gauge(
        "embedway_ledger_rows_waiting",
        "Usage rows not yet committed.",
        lambda: ledger.waiting_records,
    )
    gauge(
        "embedway_database_available",
        "1 while the database works; 0 since a read or commit failed.",
        lambda: availability.is_available,
        combine="min",
    )
