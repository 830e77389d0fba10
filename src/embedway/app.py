"""Opens the gateway from its parts, and closes it: the composition root."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import cast

import structlog
from starlette.applications import Starlette

from embedway.admin import control
from embedway.admin.control import ControlPlaneServices
from embedway.api.asgi import Application, Receive, Scope, Send
from embedway.api.embeddings import PATHS
from embedway.auth.issuers import IssuerRegistry
from embedway.config import settings as config
from embedway.config.configuration import Configuration, read_configuration
from embedway.config.issuers import private_issuer_hosts
from embedway.generation import (
    Generation,
    OpenConfiguration,
    build_generation,
    open_configuration,
)
from embedway.http.fetch import fetch_document
from embedway.ledger.reports import UsageReports
from embedway.observe import logs, streams
from embedway.organization.service import AdminService
from embedway.process_parts import Clocks, ProcessParts, open_process
from embedway.providers.pool import ProviderPool

_log = structlog.get_logger("embedway.app")


class Gateway:
    """A running gateway, as an ASGI application."""

    def __init__(self, process: ProcessParts) -> None:
        self.current: Generation
        """The generation that gets all new requests."""
        self.admission = process.admission
        self._process = process
        self._control_plane = _build_control_plane(process, lambda: self.current)
        process.metrics.add_gauge(
            "embedway_deployments_drifted",
            "Deployments that serve no requests, because their vectors are no longer those proven.",
            lambda: len(self.current.spaces.drifted_ids()),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        generation = self.current
        plane = generation.data_plane if scope["path"] in PATHS else generation.control_plane
        await plane(scope, receive, send)

    async def start(self, opened: OpenConfiguration) -> None:
        """Serve a configuration.

        Raises:
            StorageUnavailable: The database cannot be read.
        """
        self._use(await build_generation(opened, self._process, self._control_plane))

    async def aclose(self) -> None:
        """Finish what is waiting, and close what the configuration opened."""
        await self.current.parts.aclose()
        await self._issuers.aclose()

    def _use(self, generation: Generation) -> None:
        """Send all new requests to `generation`."""
        process = self._process
        self._issuers = IssuerRegistry(
            generation.issuers,
            fetch=partial(fetch_document, private_hosts=private_issuer_hosts(generation.issuers)),
            now_s=process.clocks.now_s,
        )
        process.authenticator.accept(self._issuers)
        process.metrics.set_retirements(generation.lifetimes.retirements)
        self.current = generation


def _build_control_plane(process: ProcessParts, current: Callable[[], Generation]) -> Application:
    """Build the control plane once: FastAPI takes long for it, and never frees an application."""
    services = ControlPlaneServices(
        service=AdminService(
            process.store.database, pepper=process.store.pepper, now_ms=process.clocks.now_ms
        ),
        tokens=process.tokens,
        reports=UsageReports(process.store.database),
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
    )
    return cast("Application", control_plane)  # the same types under other names


@asynccontextmanager
async def open_gateway(
    configuration: Configuration,
    *,
    clocks: Clocks = Clocks(),  # noqa: B008  # it never changes
    dropped_lines: Callable[[], int] = lambda: 0,
) -> AsyncGenerator[Gateway]:
    """Open a gateway; leaving the context finishes what is waiting and closes its parts.

    Args:
        configuration: The configuration to start with.
        clocks: The clocks of the gateway.
        dropped_lines: Returns how many log lines were dropped so far.
    """
    opened = await open_configuration(configuration, ProviderPool(), now_ms=clocks.now_ms)
    configuration = opened.configuration
    async with (
        opened.parts,  # until the gateway closes them
        open_process(
            configuration.settings,
            configuration.catalog.local_models(),
            clocks=clocks,
            dropped_lines=dropped_lines,
        ) as process,
    ):
        gateway = Gateway(process)
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
        async with open_gateway(configuration, dropped_lines=dropped_lines) as gateway:
            gateways.append(gateway)
            yield

    starting = Starlette(lifespan=lifespan)

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        handler = gateways[0] if scope["type"] == "http" else starting
        await handler(scope, receive, send)  # pyright: ignore[reportArgumentType]  # same types

    return application
