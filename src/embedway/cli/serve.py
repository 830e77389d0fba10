"""`embedway serve`: the gateway, and what it says once it is ready."""

import signal
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Annotated

import structlog
import typer

from embedway.catalog import catalog
from embedway.catalog.catalog import Catalog
from embedway.catalog.resolved_name import AUTO
from embedway.cli import notices, options
from embedway.cli.plural import count_of
from embedway.cli.terminal import escape, fail, fetch_weights, out
from embedway.config import settings as config
from embedway.config.catalogs import CatalogInUse, in_use
from embedway.config.providers import enabled_providers, incomplete_providers
from embedway.config.settings import LoadedSettings
from embedway.config.stores import open_configured_store
from embedway.core.clock import now_ms, today
from embedway.observe import logs, streams
from embedway.organization import key_secret
from embedway.organization.keys import KeyBootstrap
from embedway.routing.resolve import resolve
from embedway.serving.address import AddressError, base_url, bind
from embedway.storage import database
from embedway.storage.store import Store

if TYPE_CHECKING:
    from embedway.app import Gateway

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
) -> None:
    """Run the gateway. Ctrl-C or SIGTERM finishes what is in flight, then stops it.

    The first start makes a key and shows it, this once. Everything else that can be set is in
    `embedway config show`; each line of it can be set by a variable, as in

        EMBEDWAY_PORT=9000 embedway serve
    """
    loaded = config.load_settings(host=host, port=port)
    settings = loaded.settings
    dropped_lines = streams.write_in_background()
    logs.configure_logs(format=settings.log_format, level=settings.log_level, for_good=True)
    if loaded.unknown:
        _log.warning("unknown variables", names=loaded.unknown)
    try:
        bound = bind(settings)
        used = in_use(settings)
        providers = enabled_providers(loaded, used=used)
        for missing in incomplete_providers(loaded):
            _log.warning("provider left out", reason=missing)
        for model in catalog.load_catalog(eu_native=settings.eu_native).local_models():
            fetch_weights(model, settings)
        # Until the server handles signals there is nothing to tidy up, so Ctrl-C need not be
        # an exception in whatever is being imported.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        from embedway.serving import server  # noqa: PLC0415  # the engine: other commands do without

        server.run_server(
            settings,
            providers,
            bound,
            on_ready=partial(_greet, loaded, used),
            dropped_lines=dropped_lines,
        )
    except AddressError as error:
        fail(error)


def _first_key(store: Store) -> str | None:
    """The secret of a first key, if there has never been one."""
    shown, key = key_secret.issue_key("first", pepper=store.pepper, now_ms=now_ms())
    return shown if KeyBootstrap(store.database).create_first(key) else None


def _providers(gateway: "Gateway") -> str:
    """Who can be asked, how we know of them, and how many of their models are known."""
    if not gateway.providers:
        return "this gateway alone; `embedway providers list --all` shows who else could be"
    counts = Counter(each.provider for each in gateway.catalog.deployments())
    return f"\n{' ' * 13}".join(
        f"{each.name} ({each.origin}), {count_of(counts[each.name], 'model')} known"
        for each in gateway.providers
    )


def _aliases(catalog: Catalog) -> str:
    return (
        f"\n{' ' * 13}".join(
            f"{alias} -> {_stands_for(alias, catalog)}"
            for alias in catalog.aliases
            if alias != AUTO
        )
        or "none; a section [aliases] of embedway.toml adds some"
    )


def _stands_for(alias: str, catalog: Catalog) -> str:
    """The names, and whom that means."""
    named = resolve(alias, catalog, param="model")
    of = ", ".join(
        each.provider if each.model.declared else f"{each.provider}, a model that nobody declared"
        for each in named.deployments
    )
    return f"{', then '.join(catalog.aliases[alias])} ({of})"


def _warnings(loaded: LoadedSettings, used: CatalogInUse, gateway: "Gateway") -> str:
    told = (
        used.problem,
        notices.retired(gateway.catalog, today()),
        notices.retiring(gateway.catalog, today()),
        notices.unpriced(gateway.catalog),
        notices.drifted(gateway.spaces.drifted_ids()),
        notices.readable(loaded),
    )
    return "".join(f"\n[yellow]warning[/yellow]: {escape(each)}\n" for each in told if each)


def _greet(loaded: LoadedSettings, used: CatalogInUse, gateway: "Gateway") -> None:
    settings = loaded.settings
    store = open_configured_store(settings, create=False)  # the gateway has made it
    first_key, kept_in = _first_key(store), database.describe(store.database)
    store.database.dispose()
    base = f"{base_url(settings)}/v1"
    key = first_key or "$EMBEDWAY_API_KEY"
    python_key = f'"{first_key}"' if first_key else 'os.environ["EMBEDWAY_API_KEY"]'
    note = (
        f"{first_key}  (shown this once; only its hash is kept)"
        if first_key
        else "yours from before, or a new one: embedway keys create --name NAME"
    )
    out.print(
        f"""
[bold]Embedway[/bold] is ready.

  base URL   {base}
  key        {escape(note)}
  auto       {escape(_stands_for(AUTO, gateway.catalog))}
  aliases    {escape(_aliases(gateway.catalog))}
  providers  {escape(_providers(gateway))}
  catalog    {escape(used.described)}
  database   {escape(kept_in)}
  docs       {base.removesuffix("/v1")}/docs
{_warnings(loaded, used, gateway)}
curl {base}/embeddings -H "Authorization: Bearer {key}" \\
  -H "Content-Type: application/json" -d '{escape('{"input": "The quick brown fox"}')}'

import os, openai
client = openai.OpenAI(base_url="{base}", api_key={escape(python_key)})
client.embeddings.create(model="auto", input="The quick brown fox").data{escape("[0]")}.embedding
"""
    )
