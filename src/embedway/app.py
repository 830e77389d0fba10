"""Builds the gateway from its parts, and closes them: the composition root."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from random import Random

import msgspec
import structlog
from starlette.applications import Starlette

from embedway.admin import control
from embedway.admin import tokens as token_routes
from embedway.admin.control import ControlPlaneServices
from embedway.api.admission import Admission
from embedway.api.asgi import Application, Receive, Scope, Send
from embedway.api.body_gate import BodyGate
from embedway.api.connection import BodyLimits
from embedway.api.cors import Cors
from embedway.api.embeddings import PATHS, EmbeddingsEndpoint
from embedway.auth.authenticator import Authenticator
from embedway.auth.issuers import IssuerRegistry
from embedway.auth.tokens import GatewayTokens
from embedway.budgets.enforcer import BudgetEnforcer
from embedway.budgets.hold_store import HoldStore
from embedway.catalog.catalog import LOCAL, Catalog
from embedway.catalog.lifetimes import ModelLifetimes
from embedway.concurrency.ttl_cache import TTLCache
from embedway.config import settings as config
from embedway.config.catalogs import catalog_in_use
from embedway.config.engines import load_engine, open_providers
from embedway.config.issuers import private_issuer_hosts, read_issuers
from embedway.config.models import build_catalog
from embedway.config.providers import enabled_providers
from embedway.config.settings import Settings
from embedway.config.spaces import build_memberships
from embedway.config.stores import open_configured_store, reveal
from embedway.config.webhooks import read_webhooks
from embedway.core import clock, ids
from embedway.core.errors import EmbedwayError, ServiceOverloaded
from embedway.core.keys import KeyContext
from embedway.core.usage import UsageRecord
from embedway.events.deliverer import Deliverer
from embedway.events.event import Webhook
from embedway.events.outbox import Outbox
from embedway.health.health import HealthRegistry
from embedway.http.fetch import fetch_document
from embedway.ledger.ledger import Ledger
from embedway.ledger.refusals import RefusalStore
from embedway.ledger.reports import UsageReports
from embedway.local.engine import LocalEngine
from embedway.metering.account import AccountFinder
from embedway.metering.meter import Meter
from embedway.observe import events, logs, streams
from embedway.observe.metrics import Metrics
from embedway.observe.refusals import RefusalCounts
from embedway.organization.directory import Directory
from embedway.organization.service import AdminService
from embedway.pipeline.embed import Embedder
from embedway.providers import local_servers
from embedway.providers.provider_config import ProviderConfig
from embedway.ratelimits.limiter import RateLimiter
from embedway.ratelimits.memory import MemoryRateLimiter
from embedway.ratelimits.shared import SharedRateLimiter
from embedway.routing.model_listing import ModelListing
from embedway.routing.router import Router
from embedway.sending.engine import Engine, EngineRegistry
from embedway.sending.outcome import CallEvents
from embedway.sending.prepare import InputPreparer
from embedway.sending.sender import Sender
from embedway.spaces.membership import SpaceMemberships
from embedway.spaces.prober import Prober
from embedway.spaces.store import SpaceStore
from embedway.storage.store import Store
from embedway.tokenizing.cl100k import Cl100kTokenizer

_log = structlog.get_logger("embedway.app")


class Gateway(msgspec.Struct, frozen=True):
    """A running gateway, as an ASGI application."""

    data_plane: Application
    control_plane: Application
    admission: Admission
    catalog: Catalog
    providers: Sequence[ProviderConfig]
    embedder: Embedder
    model_listing: ModelListing
    spaces: SpaceMemberships

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        plane = self.data_plane if scope["path"] in PATHS else self.control_plane
        await plane(scope, receive, send)


@asynccontextmanager
async def open_gateway(
    settings: Settings,
    providers: Sequence[ProviderConfig] = (),
    *,
    webhooks: Sequence[Webhook] = (),
    now_ms: Callable[[], int] = clock.now_ms,
    now_s: Callable[[], float] = time.monotonic,
    dropped_lines: Callable[[], int] = lambda: 0,
) -> AsyncGenerator[Gateway]:
    """Open a gateway; leaving the context finishes what is waiting and closes its parts.

    Args:
        settings: The settings in force.
        providers: The enabled providers.
        webhooks: Those who receive events.
        now_ms: The wall clock, in ms since the epoch.
        now_s: A monotonic clock for waits and deadlines, in seconds.
        dropped_lines: Returns how many log lines were dropped so far.
    """
    metrics = Metrics()
    providers = await local_servers.add_local_models(
        providers,
        settings.port,
        section_names=settings.providers,
        find_others=settings.local_servers,
    )
    remote = dict(open_providers(providers))
    providers = [each for each in providers if each.name in remote]
    models = build_catalog(settings, providers)
    async with AsyncExitStack() as parts:
        for each in remote.values():
            parts.push_async_callback(each.aclose)
        store = await asyncio.to_thread(open_configured_store, settings, create=True)
        parts.callback(store.database.dispose)
        outbox, deliverer = _open_deliverer(webhooks, store, metrics, parts, now_ms=now_ms)
        process = ids.new_id("proc")
        ledger = Ledger(store.database, process=process, availability=store.availability)
        parts.callback(ledger.close)
        directory = Directory(store.database, availability=store.availability)
        refusals = _refusals(store, parts, now_ms=now_ms)
        cl100k = Cl100kTokenizer()
        parts.callback(cl100k.close)
        engines: dict[str, LocalEngine] = {}
        for model in models.local_models():
            on_batch = metrics.batch_items.labels(model.id).observe
            engine = await asyncio.to_thread(load_engine, model, settings, on_batch=on_batch)
            parts.callback(engine.close)
            engines[model.id] = engine
        # The web framework keeps references after the gateway is closed: free the models.
        parts.callback(engines.clear)
        all_engines: dict[str, Engine] = {
            **{f"{LOCAL}:{id}": engine for id, engine in engines.items()},
            **remote,
        }
        parts.callback(all_engines.clear)
        spaces, lifetimes = build_memberships(settings, models, providers, now_ms=now_ms)
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
        sender = Sender(
            EngineRegistry(all_engines),
            healths=healths,
            preparer=InputPreparer(tokenizers=engines, cl100k=cl100k),
            events=CallEvents(
                on_outcome=partial(events.log_call, metrics),
                on_overcount=partial(events.log_overcount, metrics),
                on_unreadable_usage=partial(events.log_unreadable_usage, metrics),
            ),
        )
        prober = Prober(
            spaces=spaces,
            sender=sender,
            store=SpaceStore(
                store.database,
                availability=store.availability,
                on_change=partial(events.write_space_change, outbox),
            ),
            on_event=partial(events.log_space_event, metrics),
            record=partial(_record_probe, ledger),
        )
        await prober.load()
        parts.push_async_callback(prober.aclose)
        router = Router(
            catalog=models,
            lifetimes=lifetimes,
            spaces=spaces,
            healths=healths,
            abilities=sender.engines.abilities,
            now_s=now_s,
            random=Random(),
        )
        embedder = Embedder(
            router=router,
            prober=prober,
            sender=sender,
            meter=Meter(
                accounts=AccountFinder(directory),
                limiter=await _limiter(
                    settings, metrics, parts, publish=deliverer.publish, now_s=now_s
                ),
                budgets=budgets,
            ),
            ledger=ledger,
            deadline_s=settings.request_timeout_s,
            now_ms=now_ms,
        )
        parts.push_async_callback(embedder.aclose)
        model_listing = ModelListing(
            catalog=models,
            lifetimes=lifetimes,
            spaces=spaces,
            healths=healths,
            alive=lambda each: each.provider != LOCAL or engines[each.model.id].alive,
            limits=sender.engines.limits,
            max_items=settings.max_items,
        )
        issuers = _open_issuers(settings, parts, now_s=now_s)
        tokens = GatewayTokens(pepper=store.pepper, audiences=settings.token_audiences)
        authenticator = Authenticator(
            directory,
            pepper=store.pepper,
            now_ms=now_ms,
            tokens=tokens,
            issuers=issuers,
        )
        organization = ControlPlaneServices(
            service=AdminService(store.database, pepper=store.pepper, now_ms=now_ms),
            tokens=tokens,
            reports=UsageReports(store.database),
            now_ms=now_ms,
        )
        admission = Admission(
            max_requests=settings.max_in_flight, max_bytes=settings.max_in_flight_bytes
        )
        _add_gauges(metrics, admission, ledger, engines, spaces, lifetimes, dropped_lines)
        embeddings = EmbeddingsEndpoint(
            authenticator=authenticator,
            embedder=embedder,
            admission=admission,
            lifetimes=lifetimes,
            metrics=metrics,
            refusals=refusals,
            body_limits=BodyLimits(
                max_bytes=settings.max_body_bytes, timeout_s=settings.body_timeout_s
            ),
            max_items=settings.max_items,
        )
        control_plane = control.create_control_plane(
            listing=model_listing,
            services=organization,
            authenticator=authenticator,
            metrics=metrics,
            check_ready=partial(
                _check_ready,
                admission,
                ledger,
                engines,
                keys=TTLCache(directory.find_key_by_digest),
                commits=TTLCache(lambda _: ledger.try_commit()),
            ),
            embeddings_paths=PATHS,
            max_items=settings.max_items,
        )
        yield Gateway(
            _for_browsers(embeddings, settings),
            _for_browsers(
                BodyGate(
                    control_plane,  # pyright: ignore[reportArgumentType]
                    authenticator=authenticator,
                    admission=admission,
                    timeout_s=settings.body_timeout_s,
                    open_paths=[token_routes.OAUTH_PATH],
                ),
                settings,
            ),
            admission,
            models,
            providers,
            embedder,
            model_listing,
            spaces,
        )


def _for_browsers(plane: Application, settings: Settings) -> Application:
    """Let web pages call the plane too, if the settings list their origins."""
    return Cors(plane, origins=settings.cors_origins) if settings.cors_origins else plane


def create() -> Application:
    """Return the application for another ASGI server: `uvicorn --factory embedway.app:create`."""
    gateways: list[Gateway] = []

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None]:
        loaded = config.load_settings()
        settings = loaded.settings
        catalog = catalog_in_use(settings)
        dropped_lines = streams.write_in_background()
        logs.configure_logs(format=settings.log_format, level=settings.log_level, for_good=True)
        if catalog.problem:
            _log.warning("catalog not used", reason=catalog.problem)
        async with open_gateway(
            settings,
            enabled_providers(loaded, used=catalog),
            webhooks=read_webhooks(loaded),
            dropped_lines=dropped_lines,
        ) as gateway:
            gateways.append(gateway)
            yield

    starting = Starlette(lifespan=lifespan)

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        handler = gateways[0] if scope["type"] == "http" else starting
        await handler(scope, receive, send)  # pyright: ignore[reportArgumentType]  # same types

    return application


async def _check_ready(
    admission: Admission,
    ledger: Ledger,
    engines: dict[str, LocalEngine],
    *,
    keys: TTLCache[bytes, KeyContext | None],
    commits: TTLCache[bytes, None],
) -> None:
    if admission.is_draining:
        raise ServiceOverloaded("This gateway is stopping. Send requests elsewhere.")
    if not (ledger.is_alive and all(engine.alive for engine in engines.values())):
        raise ServiceOverloaded("A worker has died. Restart this gateway.")
    await keys.get(b"")
    if ledger.is_failing:  # with no requests, nothing else shows that the database is back
        await commits.get(b"")


async def _limiter(
    settings: Settings,
    metrics: Metrics,
    parts: AsyncExitStack,
    *,
    publish: events.Publish,
    now_s: Callable[[], float],
) -> RateLimiter:
    """Count together with the other replicas if Redis is set, else alone."""
    url = reveal(settings.redis_url)
    if url is None:
        return MemoryRateLimiter(now_ms=lambda: int(now_s() * 1000))
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
    )
    await limiter.start()
    return limiter


def _open_issuers(
    settings: Settings, parts: AsyncExitStack, *, now_s: Callable[[], float]
) -> IssuerRegistry:
    configured = read_issuers(settings)
    issuers = IssuerRegistry(
        configured,
        fetch=partial(fetch_document, private_hosts=private_issuer_hosts(configured)),
        now_s=now_s,
    )
    parts.push_async_callback(issuers.aclose)
    return issuers


def _open_deliverer(
    webhooks: Sequence[Webhook],
    store: Store,
    metrics: Metrics,
    parts: AsyncExitStack,
    *,
    now_ms: Callable[[], int],
) -> tuple[Outbox, Deliverer]:
    outbox = Outbox(store.database, now_ms=now_ms, availability=store.availability)
    parts.callback(outbox.close)
    deliverer = Deliverer(outbox, on_result=metrics.count_delivery)
    parts.push_async_callback(deliverer.aclose)
    deliverer.use(webhooks)
    store.availability.on_outage = partial(events.report_outage, deliverer.publish_unstored)
    metrics.add_gauge(
        "embedway_webhook_deliveries_waiting",
        "Deliveries of events to webhooks that wait in the database.",
        lambda: deliverer.waiting,
    )
    return outbox, deliverer


def _refusals(store: Store, parts: AsyncExitStack, *, now_ms: Callable[[], int]) -> RefusalCounts:
    refusal_store = RefusalStore(store.database, availability=store.availability)
    parts.callback(refusal_store.close)
    counts = RefusalCounts(refusal_store, now_ms=now_ms)
    parts.push_async_callback(counts.aclose)
    return counts


async def _record_probe(ledger: Ledger, record: UsageRecord) -> None:
    # The proof counts even if its record is lost.
    with suppress(EmbedwayError):
        await ledger.append([record])


def _add_gauges(
    metrics: Metrics,
    admission: Admission,
    ledger: Ledger,
    engines: dict[str, LocalEngine],
    spaces: SpaceMemberships,
    lifetimes: ModelLifetimes,
    dropped_lines: Callable[[], int],
) -> None:
    metrics.add_counter(
        "embedway_log_lines_dropped",
        "Lines of the log that could not be written, or that nobody read in time.",
        dropped_lines,
    )
    metrics.set_retirements(lifetimes.retirements)
    gauge = metrics.add_gauge
    gauge(
        "embedway_deployments_drifted",
        "Deployments that serve no requests, because their vectors are no longer those proven.",
        lambda: len(spaces.drifted_ids()),
    )
    gauge("embedway_requests_in_flight", "Requests being answered.", lambda: admission.requests)
    gauge("embedway_in_flight_bytes", "Bytes of their bodies and answers.", lambda: admission.bytes)
    gauge(
        "embedway_queue_tokens",
        "Tokens that wait for a local model.",
        lambda: sum(engine.waiting_tokens for engine in engines.values()),
    )
    gauge(
        "embedway_ledger_rows_waiting",
        "Usage rows not yet committed.",
        lambda: ledger.waiting_records,
    )
