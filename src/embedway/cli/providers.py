"""`embedway providers`: who can be asked, and whether they answer."""

import asyncio
import time
from typing import Annotated, Any

import msgspec
import typer
from rich.markup import escape

from embedway.catalog import catalog
from embedway.catalog.model import Served
from embedway.cli.terminal import (
    AsJson,
    err,
    fail,
    load_providers,
    out,
    print_json,
    print_table,
    say_error,
)
from embedway.config import settings as config
from embedway.config.providers import incomplete, offers
from embedway.core import vectors
from embedway.core.batch import Batch
from embedway.core.errors import EmbedwayError
from embedway.core.provider_error import ProviderError
from embedway.providers.adapter import Row
from embedway.providers.declared import Declared
from embedway.providers.registry import rows
from embedway.routing.resolve import find

TEXT = "The quick brown fox jumps over the lazy dog."

commands = typer.Typer(no_args_is_help=True, help="List providers and try them.")


@commands.command("list")
def list_providers(
    all_kinds: Annotated[
        bool, typer.Option("--all", help="Every kind there is, and what enables it.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the providers that are enabled, those of embedway.toml first.

    A provider is enabled by its usual variable, such as OPENAI_API_KEY, by a section of
    embedway.toml, or by running on this machine:

        embedway providers list --all
    """
    if all_kinds:
        kinds = [_kind(row, notes=as_json) for row in rows().values()]
        print_table(kinds, empty="", as_json=as_json)
        return
    loaded = config.load()
    declared = load_providers(loaded)
    known = catalog.load(eu_native=False, offers=offers(declared))
    enabled = [
        {
            "name": each.name,
            "kind": each.row.name,
            "base_url": each.url,
            "keys": len(each.keys),
            "models": sum(served.provider == each.name for served in known.deployments()),
            "from": each.origin,
        }
        for each in declared
    ]
    print_table(
        enabled,
        empty="None but the models that run here. `embedway providers list --all` shows the rest.",
        as_json=as_json,
    )
    for missing in incomplete(loaded):
        err.print(f"[yellow]left out:[/yellow] {escape(missing)}")


@commands.command("test")
def try_provider(
    name: Annotated[str, typer.Argument(help="As `list` shows it.")],
    model: Annotated[
        str | None, typer.Option(help="By any of its names; the first known if left out.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Embed one short text at a provider, with each of its keys, and show what came back.

    The provider bills it.

        embedway providers test openai

        embedway providers test ollama --model nomic-embed-text
    """
    loaded = config.load()
    declared = load_providers(loaded)
    chosen = next((each for each in declared if each.name == name), None)
    if chosen is None:
        missing = [each for each in incomplete(loaded) if each.startswith(f"{name}: ")]
        names = ", ".join(each.name for each in declared) or "none"
        fail(
            missing[0] if missing
            else f"No provider {name!r} is enabled. Enabled: {names}. `list --all` says how."
        )  # fmt: skip
    served = _served(chosen, model)
    name_there = served.name
    answers: list[dict[str, Any]] = []
    for number, key in enumerate(chosen.keys or [None]):
        which = f" with key {number + 1} of {len(chosen.keys)}" if len(chosen.keys) > 1 else ""
        one = msgspec.structs.replace(chosen, keys=[key] if key else [])
        began_s = time.perf_counter()
        try:
            with err.status(f"Asking {chosen.url}{which}"):
                width, tokens = asyncio.run(
                    _embedded(one, served, loaded.settings.request_timeout_s)
                )
        except (ProviderError, EmbedwayError, ImportError, ValueError) as error:
            say_error(f"{name}{which}: {_told(chosen, name_there, error)}")
            continue
        answers.append(
            {
                "provider": name,
                "model": name_there,
                "dimensions": width,
                "tokens": tokens,
                "milliseconds": round((time.perf_counter() - began_s) * 1000),
            }
        )
        if not as_json:
            unknown = "" if served.model.declared else ", a model that nobody declared"
            out.print(
                f"[green]{escape(name)}[/green] answers{which}: "
                f"{escape(name_there)}{unknown}, {width} dimensions, "
                f"{answers[-1]['milliseconds']} ms."
            )
    if as_json:
        for answer in answers:
            print_json(answer)
    if len(answers) < max(1, len(chosen.keys)):
        raise typer.Exit(1)


def _served(chosen: Declared, name: str | None) -> Served:
    """The model to try, as the catalog knows it."""
    known = catalog.load(eu_native=False, offers=offers([chosen]))
    if name:
        return find(f"{chosen.name}:{name}", known, param="model").served[0]
    served = [each for each in known.deployments() if each.provider == chosen.name]
    if served:
        return served[0]
    return fail(f"Say which model: embedway providers test {chosen.name} --model NAME")


async def _embedded(declared: Declared, served: Served, timeout_s: float) -> tuple[int, int]:
    from embedway.providers import provider  # noqa: PLC0415  # the HTTP client: listing needs none

    asked, model = provider.build(declared), served.model
    batch = Batch(model=served.name, items=[TEXT], tokens=[10], width=model.dimensions)
    try:
        async with asyncio.timeout(timeout_s):
            result = await asked.embed(batch)
    except TimeoutError:
        raise ProviderError("timeout") from None
    finally:
        await asked.aclose()
    width = result.vectors.shape[1]
    if model.dimensions not in {None, width}:
        raise ValueError(
            f"it answers with {width} dimensions, but {model.dimensions} are declared for "
            f"{model.id}. Correct its dimensions in embedway.toml."
        )
    vectors.check(result.vectors, items=1, dimensions=None)
    return width, result.tokens or 0


def _told(declared: Declared, model: str, error: Exception) -> str:
    """What went wrong, for who runs the gateway."""
    if not isinstance(error, ProviderError):
        return str(error)
    status = f" (HTTP {error.status})" if error.status else ""
    reason = f": {error.reason}" if error.reason else ""
    cause = f" ({_cause(error.__cause__)})" if error.__cause__ else ""
    match error.kind:
        case "credentials":
            return f"it refuses the key{status}{reason}. The key is from {declared.origin}."
        case "model":
            return (
                f"it has no model {model!r}{status}{reason}. If it should, check the base URL: "
                f"{declared.url}"
            )
        case "unreachable":
            return (
                f"nothing answers at {declared.url}{cause}. A private address has to be declared "
                "as its base_url."
            )
        case kind:
            return f"{kind.replace('_', ' ')}{status}{reason}{cause}. Asked: {declared.url}"


def _cause(error: BaseException) -> str:
    return str(getattr(error, "strerror", None) or error or type(error).__name__)


def _kind(row: Row, *, notes: bool) -> dict[str, object]:
    needed = [row.variables[name] for name in row.variables if name not in row.defaults]
    keys = " or ".join(row.key_variables)
    found = " + ".join(filter(None, (keys, *needed)))
    if row.own_server:
        found = f"found on port {row.port}"
    told: dict[str, object] = {
        "kind": row.name,
        "provider": row.title,
        "enabled_by": found or f"[providers.{row.name}] in embedway.toml",
    }
    if notes:
        told |= {"base_url": row.base_url, "eu_native": row.eu_native, "notes": row.notes}
    return told
