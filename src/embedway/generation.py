"""Builds what follows from one configuration. A reload builds a new generation."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, suppress
from functools import partial
from random import Random

import msgspec

from embedway.admin import files as file_routes
from embedway.admin import tokens as token_routes
from embedway.api.asgi import Application
from embedway.api.body_gate import BodyGate
from embedway.api.connection import BodyLimits
from embedway.api.cors import Cors
from embedway.api.embeddings import EmbeddingsEndpoint
from embedway.catalog.catalog import LOCAL
from embedway.catalog.lifetimes import ModelLifetimes
from embedway.config.configuration import Configuration
from embedway.config.engines import open_provider
from embedway.config.settings import Settings
from embedway.config.spaces import build_memberships
from embedway.core.errors import EmbedwayError
from embedway.core.usage import UsageRecord
from embedway.ledger.ledger import Ledger
from embedway.observe import events
from embedway.pipeline.embed import Embedder
from embedway.process_parts import ProcessParts
from embedway.providers import local_servers
from embedway.providers.pool import ProviderPool
from embedway.providers.provider import Provider
from embedway.routing.model_listing import ModelListing
from embedway.routing.router import Router
from embedway.sending.engine import Engine, EngineRegistry
from embedway.sending.prepare import InputPreparer
from embedway.sending.sender import Sender
from embedway.spaces.membership import SpaceMemberships
from embedway.spaces.prober import Prober


class OpenConfiguration(msgspec.Struct, frozen=True, kw_only=True):
    """A configuration that was found possible, with its providers open."""

    configuration: Configuration
    """The configuration, with the servers that were found on this machine."""
    providers: Mapping[str, Provider]
    """The providers that can be used, by name."""
    spaces: SpaceMemberships
    lifetimes: ModelLifetimes
    parts: AsyncExitStack
    """Closes the providers."""


class Generation(msgspec.Struct, kw_only=True, eq=False):
    """The parts of a gateway that one configuration makes."""

    configuration: Configuration
    providers: Mapping[str, Provider]
    """The open providers, by name."""
    spaces: SpaceMemberships
    lifetimes: ModelLifetimes
    embedder: Embedder
    model_listing: ModelListing
    data_plane: Application
    control_plane: Application
    parts: AsyncExitStack
    """Closes the parts."""
    requests: int = 0
    """The requests that it is answering."""

    async def aclose(self) -> None:
        """Finish what is waiting, and close the parts."""
        await self.parts.aclose()


async def find_servers(
    configuration: Configuration, *, running: Configuration | None = None
) -> Configuration:
    """Add the provider servers on this machine, and the models that servers of one's own list.

    Servers that do not answer keep the models that they have in the `running` configuration.
    """
    settings = configuration.settings
    found = await local_servers.add_local_models(
        configuration.providers,
        settings.port,
        section_names=settings.providers,
        find_others=settings.local_servers,
        known=running.providers if running else (),
    )
    return msgspec.structs.replace(configuration, providers=found)


async def open_configuration(
    configuration: Configuration, pool: ProviderPool, *, now_ms: Callable[[], int]
) -> OpenConfiguration:
    """Open the providers, and check everything else.

    Args:
        configuration: The configuration to open.
        pool: The providers that are open already.
        now_ms: The wall clock, in ms since the epoch.

    Raises:
        ConfigError: The configuration is impossible.
    """
    async with AsyncExitStack() as parts:
        remote: dict[str, Provider] = {}
        for each in configuration.providers:
            provider = await pool.take(each, partial(open_provider, each))
            if provider is not None:
                parts.push_async_callback(pool.release, provider)
                remote[each.name] = provider
        usable = [each for each in configuration.providers if each.name in remote]
        if len(usable) < len(configuration.providers):
            configuration = msgspec.structs.replace(configuration, providers=usable)
        catalog = await asyncio.to_thread(lambda: configuration.catalog)
        spaces, lifetimes = await asyncio.to_thread(
            build_memberships, configuration.settings, catalog, usable, now_ms=now_ms
        )
        return OpenConfiguration(
            configuration=configuration,
            providers=remote,
            spaces=spaces,
            lifetimes=lifetimes,
            parts=parts.pop_all(),
        )


async def build_generation(
    opened: OpenConfiguration,
    process: ProcessParts,
    control_plane: Application,
    *,
    previous: Generation | None = None,
) -> Generation:
    """Build the parts that a configuration makes.

    Args:
        opened: The configuration. The generation closes what it opened.
        process: The parts that every generation uses.
        control_plane: The routes of the control plane.
        previous: The generation in force, from which it takes what is known of vector spaces; None
            to read that from the database.

    Raises:
        StorageUnavailable: The database cannot be read.
    """
    configuration, spaces, lifetimes = opened.configuration, opened.spaces, opened.lifetimes
    settings, catalog, parts = configuration.settings, configuration.catalog, opened.parts
    now_ms = process.clocks.now_ms
    local = process.local_engines
    engines: dict[str, Engine] = {f"{LOCAL}:{id}": each for id, each in local.items()}
    engines |= opened.providers
    # The web framework keeps references after the gateway is closed: free the models.
    parts.callback(engines.clear)
    sender = Sender(
        EngineRegistry(engines),
        healths=process.healths,
        preparer=InputPreparer(tokenizers=local, cl100k=process.cl100k),
        events=events.observe_calls(process.metrics, process.tracer),
        budget=process.retry_budget,
    )
    prober = Prober(
        spaces=spaces,
        sender=sender,
        store=process.space_store,
        on_event=partial(events.log_space_event, process.metrics),
        record=partial(_record_probe, process.ledger),
    )
    if previous is None:
        await prober.load()
    else:
        spaces.load(*previous.spaces.known())
    parts.push_async_callback(prober.aclose)
    router = Router(
        catalog=catalog,
        lifetimes=lifetimes,
        spaces=spaces,
        healths=process.healths,
        abilities=sender.engines.abilities,
        now_s=process.clocks.now_s,
        random=Random(),
    )
    embedder = Embedder(
        router=router,
        prober=prober,
        sender=sender,
        meter=process.meter,
        ledger=process.ledger,
        deadline_s=settings.request_timeout_s,
        now_ms=now_ms,
    )
    parts.push_async_callback(embedder.aclose)
    model_listing = ModelListing(
        catalog=catalog,
        lifetimes=lifetimes,
        spaces=spaces,
        healths=process.healths,
        alive=lambda each: each.provider != LOCAL or local[each.model.id].alive,
        limits=sender.engines.limits,
        max_items=settings.max_items,
    )
    embeddings = EmbeddingsEndpoint(
        authenticator=process.authenticator,
        embedder=embedder,
        admission=process.admission,
        lifetimes=lifetimes,
        metrics=process.metrics,
        refusals=process.refusals,
        tracer=process.tracer,
        body_limits=BodyLimits(
            max_bytes=settings.max_body_bytes, timeout_s=settings.body_timeout_s
        ),
        max_items=settings.max_items,
    )
    gate = BodyGate(
        control_plane,
        authenticator=process.authenticator,
        admission=process.admission,
        timeout_s=settings.body_timeout_s,
        open_paths=[token_routes.OAUTH_PATH],
        uploads={file_routes.PATH: file_routes.MAX_UPLOAD_BYTES},
    )
    return Generation(
        configuration=configuration,
        providers=opened.providers,
        spaces=spaces,
        lifetimes=lifetimes,
        embedder=embedder,
        model_listing=model_listing,
        data_plane=_for_browsers(embeddings, settings),
        control_plane=_for_browsers(gate, settings),
        parts=parts.pop_all(),
    )


def _for_browsers(plane: Application, settings: Settings) -> Application:
    """Let web pages call the plane too, if the settings list their origins."""
    return Cors(plane, origins=settings.cors_origins) if settings.cors_origins else plane


async def _record_probe(ledger: Ledger, record: UsageRecord) -> None:
    # The proof counts even if its record is lost.
    with suppress(EmbedwayError):
        await ledger.append([record])
