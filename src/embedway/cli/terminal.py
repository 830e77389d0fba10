"""Prints what commands have to say: tables for people, JSON for programs, one line for an error."""

import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NoReturn

import msgspec
import orjson
import typer
from rich import markup
from rich.console import Console
from rich.measure import Measurement
from rich.progress import MofNCompleteColumn, Progress, ProgressColumn
from rich.table import Table

from embedway.core.errors import MODELS_LISTED, EmbedwayError, Remedy

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


def say(text: str) -> None:
    """Print `text` to standard output as it is."""
    out.print(escape(text))


def note(text: str) -> None:
    """Print `text` to standard error as it is."""
    err.print(escape(text))


def count_of(number: int, thing: str) -> str:
    """Return `no lines`, `1 line` or `2,000 lines`."""
    return f"{f'{number:,}' if number else 'no'} {thing if number == 1 else f'{thing}s'}"


def count_are(number: int, thing: str) -> str:
    """Return `no lines are`, `1 line is` or `2,000 lines are`."""
    return f"{count_of(number, thing)} {'is' if number == 1 else 'are'}"


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


def print_json(value: object) -> None:
    """Print `value` as one line of JSON."""
    sys.stdout.buffer.write(orjson.dumps(value, default=msgspec.to_builtins) + b"\n")


def print_table(
    items: Sequence[Mapping[str, Any] | msgspec.Struct], *, empty: str = "", as_json: bool = False
) -> None:
    """Print `items`, which share their fields, as a table or a JSON list.

    Without items, the table is the text `empty`. A table too wide for the terminal becomes records.
    """
    if as_json:
        print_json(items)
        return
    if not items:
        out.print(empty)
        return
    rows: list[Mapping[str, Any]] = [
        msgspec.structs.asdict(each) if isinstance(each, msgspec.Struct) else each for each in items
    ]
    table = _build_table(rows, space=" ")
    if out.is_terminal:
        for each in (table, _build_table(rows, space="\n")):
            unbroken = out.options.update(width=UNBOUNDED_WIDTH)
            if Measurement.get(out, unbroken, each).maximum <= out.width:
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


def print_record(record: Mapping[str, object], *, as_json: bool = False) -> None:
    """Print a line for each field that is not None, or all fields as JSON."""
    if as_json:
        print_json(record)
        return
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


def progress(*columns: ProgressColumn, disable: bool = False) -> Progress:
    """Return a progress bar on standard error, shown only if that is a terminal."""
    columns = columns or (*Progress.get_default_columns(), MofNCompleteColumn())
    return Progress(*columns, console=err, disable=disable or not err.is_terminal)
