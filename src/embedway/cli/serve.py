"""`embedway serve`: runs the gateway, and prints how to use it once it is ready."""

import signal
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated

import structlog
import typer

from embedway.catalog.catalog import Catalog
from embedway.catalog.resolved_name import AUTO
from embedway.cli import notices, options
from embedway.cli.setup import Setup
from embedway.cli.terminal import count_of, escape, fail, out, say
from embedway.config.configuration import Configuration, read_configuration
from embedway.config.providers import incomplete_providers
from embedway.config.settings import MAX_WORKERS, load_settings
from embedway.config.stores import open_configured_store
from embedway.config.telemetry import read_telemetry
from embedway.core.clock import now_ms, today
from embedway.observe import logs, streams
from embedway.organization import key_secret
from embedway.organization.keys import KeyBootstrap
from embedway.routing.resolve import resolve
from embedway.serving.address import AddressError, base_url, bind
from embedway.serving.cores import count_workers
from embedway.serving.hangup import Hangups
from embedway.storage import database

_log = structlog.get_logger("embedway.serve")


def serve(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on; 0.0.0.0 for all. [127.0.0.1]")
    ] = None,
    port: Annotated[
        int | None,
        options.whole_number(
            "--port", least=1, most=65_535, example=9000, help="Port to listen on. [8080]"
        ),
    ] = None,
    workers: Annotated[
        str | None,
        options.whole_number_or(
            "auto",
            "--workers",
            least=1,
            most=MAX_WORKERS,
            example=4,
            help="Processes that share the port; auto for one a core, at most 8. [1]",
        ),
    ] = None,
) -> None:
    """Run the gateway until Ctrl-C or SIGTERM. It then finishes the requests in flight.

    SIGHUP reloads the configuration, as `embedway config reload` does. With several workers,
    SIGUSR2 replaces them one by one.

    The first start makes a key and shows it once. `embedway config show` lists all other settings;
    you can set each of them by a variable, such as

        EMBEDWAY_PORT=9000 embedway serve
    """
    hangups = Hangups()
    setup = Setup(load_settings(host=host, port=port, workers=workers))
    loaded, settings = setup.loaded, setup.settings
    dropped_lines = streams.write_in_background()
    logs.configure_logs(format=settings.log_format, level=settings.log_level, for_good=True)
    if loaded.unknown:
        _log.warning("unknown variables", names=loaded.unknown)
    try:
        bound = bind(settings)
        configuration = read_configuration(loaded, used=setup.catalog_in_use)
        telemetry = read_telemetry(loaded)
        for missing in incomplete_providers(loaded):
            _log.warning("provider left out", reason=missing)
        setup.fetch_weights()
        # Until the server handles signals, nothing needs tidying up, so let Ctrl-C end the process
        # instead of raising an exception in a module that is being imported.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        import uvloop  # noqa: PLC0415

        from embedway.serving.server import run_server  # noqa: PLC0415  # the engine: slow

        welcome = partial(_print_welcome, setup)
        count = count_workers(settings.workers)
        with bound:
            if count == 1:
                uvloop.run(
                    run_server(configuration, bound, hangups, welcome, dropped_lines, telemetry)
                )
            elif uvloop.run(_supervise(configuration, bound, hangups, welcome, workers=count)):
                raise typer.Exit(1)
    except AddressError as error:
        fail(error)


async def _supervise(
    configuration: Configuration,
    bound: socket.socket,
    hangups: Hangups,
    welcome: Callable[[Configuration, Sequence[str]], None],
    *,
    workers: int,
) -> int:
    """Run the gateway in several processes; return the exit status."""
    from embedway.serving.supervisor import StartError, Supervisor  # noqa: PLC0415  # slow

    # Created and brought up to date here, once.
    open_configured_store(configuration.settings, create=True).database.dispose()
    try:
        return await Supervisor(configuration, bound, workers=workers).run(hangups, welcome)
    except StartError as error:
        fail(error)


def _format_providers(configuration: Configuration) -> str:
    if not configuration.providers:
        return "this gateway alone; `embedway providers list --all` shows who else could be"
    counts = Counter(each.provider for each in configuration.catalog.deployments())
    return f"\n{' ' * 13}".join(
        f"{each.name} ({each.origin}), {count_of(counts[each.name], 'model')} known"
        for each in configuration.providers
    )


def _format_aliases(catalog: Catalog) -> str:
    return (
        f"\n{' ' * 13}".join(
            f"{alias} -> {_format_targets(alias, catalog)}"
            for alias in catalog.aliases
            if alias != AUTO
        )
        or "none; a section [aliases] of embedway.toml adds some"
    )


def _format_targets(alias: str, catalog: Catalog) -> str:
    """Return the names that an alias stands for, and the providers of their deployments."""
    providers = ", ".join(
        each.provider if each.model.declared else f"{each.provider}, a model that nobody declared"
        for each in resolve(alias, catalog, param="model").deployments
    )
    return f"{', then '.join(catalog.aliases[alias])} ({providers})"


def _print_welcome(setup: Setup, configuration: Configuration, drifted: Sequence[str]) -> None:
    catalog = configuration.catalog
    store = setup.store  # the gateway has created it
    secret, key = key_secret.issue_key("first", pepper=store.pepper, now_ms=now_ms())
    first_key = secret if KeyBootstrap(store.database).create_first(key) else None
    database_name = database.describe(store.database)
    store.database.dispose()
    base = f"{base_url(setup.settings)}/v1"
    header_key = first_key or "$EMBEDWAY_API_KEY"
    python_key = f'"{first_key}"' if first_key else 'os.environ["EMBEDWAY_API_KEY"]'
    note = (
        f"{first_key}  (shown this once; only its hash is kept)"
        if first_key
        else "an earlier one, or a new one: embedway keys create --name NAME"
    )
    out.print("\n[bold]Embedway[/bold] is ready.\n")
    say(
        f"""\
  base URL   {base}
  key        {note}
  auto       {_format_targets(AUTO, catalog)}
  aliases    {_format_aliases(catalog)}
  providers  {_format_providers(configuration)}
  catalog    {setup.catalog_in_use.described}
  database   {database_name}
  docs       {base.removesuffix("/v1")}/docs
"""
    )
    warnings = (
        setup.catalog_in_use.problem,
        notices.retired(catalog, today()),
        notices.retiring(catalog, today()),
        notices.unpriced(catalog),
        notices.drifted(drifted),
        notices.readable(setup.loaded),
    )
    for each in filter(None, warnings):
        out.print(f"[yellow]warning[/yellow]: {escape(each)}\n")
    say(
        f"""\
curl {base}/embeddings -H "Authorization: Bearer {header_key}" \\
  -H "Content-Type: application/json" -d '{{"input": "The quick brown fox"}}'

import os, openai
client = openai.OpenAI(base_url="{base}", api_key={python_key})
client.embeddings.create(model="auto", input="The quick brown fox").data[0].embedding
"""
    )
