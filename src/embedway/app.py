"""Opens the gateway from its parts, and closes it: the composition root."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import cast

import msgspec
import structlog
from starlette.applications import Starlette

from embedway.admin import control
from embedway.admin.configuration import Approve, Reload
from embedway.admin.control import ControlPlaneServices
from embedway.api.asgi import Application, Receive, Scope, Send
from embedway.api.embeddings import PATHS
from embedway.auth.issuers import IssuerRegistry
from embedway.batches.answer import LineAnswerer
from embedway.batches.job import BatchJob
from embedway.batches.run import BatchRun
from embedway.batches.runner import BatchRunner
from embedway.concurrency.background import BackgroundTasks
from embedway.config import settings as config
from embedway.config.configuration import Configuration, read_again, read_configuration
from embedway.config.differences import compare_configurations, compare_start_settings
from embedway.config.issuers import private_issuer_hosts
from embedway.config.key_files import KeyFileWatch
from embedway.config.schema import ConfigError
from embedway.config.settings import Settings
from embedway.config.telemetry import find_addresses, read_telemetry
from embedway.core.configuration_change import ConfigurationChange
from embedway.core.errors import InvalidRequest, ServiceOverloaded
from embedway.core.keys import Caller
from embedway.core.request import EmbedRequest
from embedway.generation import (
    Generation,
    OpenConfiguration,
    build_generation,
    find_servers,
    open_configuration,
)
from embedway.http.fetch import fetch_document
from embedway.ledger.reports import UsageReports
from embedway.metering.billing import BatchLine
from embedway.observe import logs, streams
from embedway.observe.otlp_options import OtlpOptions
from embedway.organization.service import AdminService
from embedway.pipeline.result import EmbedResult
from embedway.process_parts import Clocks, ProcessParts, Siblings, open_process
from embedway.providers.pool import ProviderPool

KEY_FILES_S = 1.0
"""How often to look whether files of keys have changed, in seconds."""

_log = structlog.get_logger("embedway.app")


class Gateway:
    """A running gateway, as an ASGI application. A reload replaces its configuration."""

    def __init__(
        self, process: ProcessParts, providers: ProviderPool, *, reload: Reload | None = None
    ) -> None:
        """Prepare; `start` begins. Whoever asks for a reload gets `reload`, if not this one's."""
        self.current: Generation
        """The generation that gets all new requests."""
        self.admission = process.admission
        self.metrics = process.metrics
        self._process = process
        self._providers = providers
        self._replaced: set[Generation] = set()
        """The generations that are answering their last requests."""
        self._background = BackgroundTasks()
        self._reading, self._reloading = asyncio.Lock(), asyncio.Lock()
        self._issuers: IssuerRegistry | None = None
        self._key_watch: asyncio.Task[None] | None = None
        self._batches = BatchRunner(process.batches, process.files, open_run=self._open_run)
        self._control_plane = _build_control_plane(
            process,
            current=lambda: self.current,
            reload=reload or self.reload,
            on_batch_change=self._batches.wake,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request, to its end with the configuration that it began with."""
        generation = self.current
        plane = generation.data_plane if scope["path"] in PATHS else generation.control_plane
        generation.requests += 1
        try:
            await plane(scope, receive, send)
        finally:
            generation.requests -= 1
            if generation is not self.current:
                self._close_if_idle(generation)

    async def start(self, opened: OpenConfiguration) -> None:
        """Serve the first configuration.

        Raises:
            StorageUnavailable: The database cannot be read.
        """
        self._use(await build_generation(opened, self._process, self._control_plane))
        self._process.metrics.add_gauge(
            "embedway_deployments_drifted",
            "Deployments that serve no requests, because their vectors are no longer those proven.",
            lambda: len(self.current.spaces.drifted_ids()),
            combine="max",
        )
        self._process.metrics.add_gauge(
            "embedway_batches_running",
            "Batches that this gateway works on.",
            lambda: self._batches.running,
        )

    def work_on_batches(self) -> None:
        """Begin to work on batches. A gateway that is opened to look something up does not."""
        self._batches.start()

    async def reload(
        self, *, dry_run: bool = False, approve: Approve | None = None
    ) -> list[ConfigurationChange]:
        """Read the configuration again, and use it for all requests from now on.

        It is used as a whole or not at all. Requests in flight finish with the one they began with.

        Args:
            dry_run: Whether to only find out what a reload would do.
            approve: Called with the changes before they take effect; an error stops the reload.

        Returns:
            What changed, including what only a restart can apply.

        Raises:
            InvalidRequest: The configuration is impossible; the message has all reasons.
            ServiceOverloaded: The gateway is stopping.
        """
        async with self._reading:
            self._check_running()
            configuration, read = await read_new_configuration(self.current.configuration)
            async with self.prepare(configuration, read) as prepared:
                if dry_run:
                    return prepared.changes
                if approve:
                    await approve(prepared.changes)
                await prepared.use()
        log_reload(configuration, prepared.changes)
        return prepared.changes

    @asynccontextmanager
    async def prepare(
        self, configuration: Configuration, read: Settings
    ) -> AsyncGenerator["PreparedReload"]:
        """Open a new configuration, which is used only if `PreparedReload.use` is called.

        No other reload can begin before the context is left.

        Args:
            configuration: The configuration, with the servers that were found on this machine.
            read: The settings as they were read, with those that only a restart can apply.

        Raises:
            InvalidRequest: The configuration is impossible; the message has all reasons.
            ServiceOverloaded: The gateway is stopping.
        """
        async with self._reloading:
            self._check_running()
            try:
                opened = await self._open(configuration)
            except ConfigError as error:
                raise _not_valid(error) from None
            async with opened.parts:  # until a generation closes them
                running = self.current.configuration
                changes = [
                    *compare_start_settings(running.settings, read),
                    *compare_configurations(running, opened.configuration),
                ]

                async def use() -> None:
                    self._check_running()
                    await self._replace(opened)

                yield PreparedReload(changes=changes, use=use)

    async def aclose(self) -> None:
        """Finish what is waiting, and close what the configurations opened."""
        await self._batches.aclose()
        if self._key_watch:
            self._key_watch.cancel()
        async with self._reloading:
            await self._background.close()
            for each in (*self._replaced, self.current):
                await each.aclose()
            if self._issuers:
                await self._issuers.aclose()

    def _check_running(self) -> None:
        if self.admission.is_draining:
            raise ServiceOverloaded("This gateway is stopping, so it reloads nothing.")

    async def _open(self, configuration: Configuration) -> OpenConfiguration:
        now_ms = self._process.clocks.now_ms
        return await open_configuration(configuration, self._providers, now_ms=now_ms)

    async def _replace(self, opened: OpenConfiguration) -> None:
        """Use a configuration instead of the one in force."""
        old, before = self.current, self.current.configuration.providers
        for each in opened.configuration.providers:
            if not any(map(each.opens_like, before)):
                # The operator may have cured what it was ejected for.
                self._process.healths.readmit(each.name)
        self._use(await build_generation(opened, self._process, self._control_plane, previous=old))
        logs.set_level(opened.configuration.settings.log_level)
        self._replaced.add(old)
        self._close_if_idle(old)

    def _use(self, generation: Generation) -> None:
        """Send all new requests to `generation`. Nothing here can fail or wait."""
        process, configuration = self._process, generation.configuration
        settings = configuration.settings
        self._issuers = IssuerRegistry(
            configuration.issuers,
            fetch=partial(
                fetch_document, private_hosts=private_issuer_hosts(configuration.issuers)
            ),
            now_s=process.clocks.now_s,
            known=self._issuers,
        )
        process.authenticator.accept(self._issuers)
        process.tokens.audiences = tuple(settings.token_audiences)
        process.admission.max_requests = max(settings.max_in_flight // process.workers, 1)
        process.admission.max_bytes = max(
            settings.max_in_flight_bytes // process.workers,
            min(settings.max_in_flight_bytes, settings.max_body_bytes),
        )
        is_watching = self._key_watch is not None and not self._key_watch.done()
        if not is_watching and _has_key_files(configuration):
            self._key_watch = asyncio.ensure_future(self._watch_keys())
        process.addresses.update(find_addresses(configuration.providers))
        process.deliverer.use(configuration.webhooks)
        process.metrics.set_retirements(generation.lifetimes.retirements)
        self.current = generation

    async def _watch_keys(self) -> None:
        """Use the keys in files as soon as they change, as long as there are such files."""
        watch = KeyFileWatch()
        while _has_key_files(self.current.configuration):
            await asyncio.sleep(KEY_FILES_S)
            try:
                async with self._reloading:
                    await self._replace_keys(watch)
            except ConfigError as error:
                _log.error("key not usable", reason=str(error))
            except Exception:  # noqa: BLE001  # the top of a background task
                _log.exception("keys not replaced")

    async def _replace_keys(self, watch: KeyFileWatch) -> None:
        running = self.current.configuration
        changed = await asyncio.to_thread(watch.read_changed, running.providers)
        if not changed or self.admission.is_draining:
            return
        opened = await self._open(running.with_keys(changed))
        async with opened.parts:  # until a generation closes them
            await self._replace(opened)
        _log.info("keys replaced", providers=[each.name for each in changed])

    async def _embed_line(
        self, request: EmbedRequest, caller: Caller, *, request_id: str, line: BatchLine
    ) -> EmbedResult:
        """Embed the request of a batch's line, to its end with the configuration of its begin."""
        generation, started_s = self.current, time.perf_counter()
        generation.requests += 1
        try:
            embedder = generation.embedder
            result = await embedder.embed(
                request,
                caller,
                admitted=await embedder.admit(caller, body_bytes=None),
                request_id=request_id,
                started_s=started_s,
                line=line,
            )
        finally:
            generation.requests -= 1
            if generation is not self.current:
                self._close_if_idle(generation)
        self._process.metrics.count_answer(
            result.deployments,
            costs_nano_usd=result.costs_nano_usd,
            items=len(result.vectors),
            tokens=result.tokens,
        )
        return result

    def _open_run(self, batch: BatchJob) -> BatchRun:
        settings = self.current.configuration.settings
        return BatchRun(
            batch,
            store=self._process.batches,
            files=self._process.files,
            answerer=LineAnswerer(
                self._embed_line,
                authenticator=self._process.authenticator,
                ledger=self._process.ledger,
                max_items=settings.max_items,
            ),
            now_ms=self._process.clocks.now_ms,
            max_line_bytes=settings.max_body_bytes,
            max_items=settings.max_items,
        )

    def _close_if_idle(self, generation: Generation) -> None:
        if not generation.requests and generation in self._replaced:
            self._replaced.remove(generation)
            self._background.schedule(self._close(generation))

    async def _close(self, generation: Generation) -> None:
        await generation.aclose()
        # Gauges would count deployments that no configuration has any more.
        deployments = self.current.configuration.catalog.deployments()
        self._process.healths.forget_others({each.id for each in deployments})


class PreparedReload(msgspec.Struct, frozen=True, kw_only=True):
    """A new configuration that is open and not yet in force."""

    changes: list[ConfigurationChange]
    """What it changes, including what only a restart can apply."""
    use: Callable[[], Awaitable[None]]
    """Puts it in force for all requests from now on."""


async def read_new_configuration(running: Configuration) -> tuple[Configuration, Settings]:
    """Read the configuration again, as `read_again` does, and find servers on this machine.

    Raises:
        InvalidRequest: The configuration is impossible; the message has all reasons.
    """
    try:
        configuration, read = await asyncio.to_thread(read_again, running)
        return await find_servers(configuration, running=running), read
    except ConfigError as error:
        raise _not_valid(error) from None


def log_reload(configuration: Configuration, changes: Sequence[ConfigurationChange]) -> None:
    """Log that a configuration is in force."""
    if problem := configuration.catalog_in_use.problem:
        _log.warning("catalog not used", reason=problem)
    _log.info("configuration reloaded", changes=[msgspec.to_builtins(each) for each in changes])


def _not_valid(error: ConfigError) -> InvalidRequest:
    return InvalidRequest(f"The configuration is not valid, so the old one stays in force. {error}")


def _has_key_files(configuration: Configuration) -> bool:
    return any(each.key_files for each in configuration.providers)


def _build_control_plane(
    process: ProcessParts,
    *,
    current: Callable[[], Generation],
    reload: Reload,
    on_batch_change: Callable[[], None],
) -> Application:
    """Build the control plane once: FastAPI takes long for it, and never frees an application."""
    services = ControlPlaneServices(
        service=AdminService(
            process.store.database, pepper=process.store.pepper, now_ms=process.clocks.now_ms
        ),
        tokens=process.tokens,
        reports=UsageReports(process.store.database),
        activity=process.activity,
        healths=process.healths,
        spaces=lambda: current().spaces,
        files=process.files,
        max_project_file_bytes=process.max_project_file_bytes,
        batches=process.batches,
        on_batch_change=on_batch_change,
        now_ms=process.clocks.now_ms,
    )
    control_plane = control.create_control_plane(
        listing=lambda: current().model_listing,
        services=services,
        authenticator=process.authenticator,
        metrics=process.metrics,
        check_ready=process.check_ready,
        embeddings_paths=PATHS,
        max_items=lambda: current().configuration.settings.max_items,
        reload=reload,
    )
    return cast("Application", control_plane)  # the same types under other names


@asynccontextmanager
async def open_gateway(
    configuration: Configuration,
    *,
    clocks: Clocks = Clocks(),  # noqa: B008  # it never changes
    dropped_lines: Callable[[], int] = lambda: 0,
    telemetry: OtlpOptions | None = None,
    siblings: Siblings | None = None,
) -> AsyncGenerator[Gateway]:
    """Open a gateway; leaving the context finishes what is waiting and closes its parts.

    Args:
        configuration: The configuration to start with.
        clocks: The clocks of the gateway.
        dropped_lines: Returns how many log lines were dropped so far.
        telemetry: Where to send spans and metrics; None to send none.
        siblings: What this process shares with the others on its port, which also have the same
            configuration, with the servers found on this machine; None if it is the only one.
    """
    providers = ProviderPool()
    if siblings is None:
        configuration = await find_servers(configuration)
    opened = await open_configuration(configuration, providers, now_ms=clocks.now_ms)
    configuration = opened.configuration
    async with (
        opened.parts,  # until a generation closes them
        open_process(
            configuration.settings,
            configuration.catalog.local_models(),
            clocks=clocks,
            dropped_lines=dropped_lines,
            telemetry=telemetry,
            siblings=siblings,
        ) as process,
    ):
        gateway = Gateway(process, providers, reload=siblings.reload if siblings else None)
        await gateway.start(opened)
        try:
            yield gateway
        finally:
            await gateway.aclose()


def create() -> Application:
    """Return the application for another ASGI server: `uvicorn --factory embedway.app:create`."""
    gateways: list[Gateway] = []

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None]:
        loaded = config.load_settings()
        settings = loaded.settings
        dropped_lines = streams.write_in_background()
        logs.configure_logs(format=settings.log_format, level=settings.log_level, for_good=True)
        configuration = read_configuration(loaded)
        if problem := configuration.catalog_in_use.problem:
            _log.warning("catalog not used", reason=problem)
        async with open_gateway(
            configuration, dropped_lines=dropped_lines, telemetry=read_telemetry(loaded)
        ) as gateway:
            gateway.work_on_batches()
            gateways.append(gateway)
            yield

    starting = Starlette(lifespan=lifespan)

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        handler = gateways[0] if scope["type"] == "http" else starting
        await handler(scope, receive, send)  # pyright: ignore[reportArgumentType]  # same types

    return application
