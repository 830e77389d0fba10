"""Who runs a command, and what the commands that administer have in common."""

import getpass
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

import typer
from rich.markup import escape

from embedway.admin.actors import Actor
from embedway.admin.acts import Acts
from embedway.catalog.catalog import LOCAL
from embedway.cli.amounts import shown_budget
from embedway.cli.terminal import fail, load_catalog, load_store, out
from embedway.config import settings as config
from embedway.core.budgets import Budget
from embedway.core.clock import now_ms
from embedway.core.errors import UnknownModel
from embedway.core.money import as_usd
from embedway.core.pages import Page
from embedway.core.subjects import Subject
from embedway.routing.resolve import find

ANY = "any"
"""Typed for a list of names to take it away."""
PAGE = 100
"""How many are read at a time."""

Item = TypeVar("Item")

ModelOption = Annotated[
    list[str] | None,
    typer.Option("--model", help="A name of a model it may use; any if left out. Repeatable."),
]
ProviderOption = Annotated[
    list[str] | None,
    typer.Option("--provider", help="Who may serve it; any if left out. Repeatable."),
]
OfProject = Annotated[
    str, typer.Option("--project", metavar="ID|NAME", help="The project, by its id or name.")
]

Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


def acting() -> tuple[Acts, Actor]:
    """What can be done, and by whom: the user of the operating system, an administrator."""
    store = load_store()
    try:
        user = getpass.getuser()
    except (OSError, KeyError, ImportError):
        user = "unknown"
    return Acts(store.database, pepper=store.pepper, now_ms=now_ms), Actor.at_command_line(user)


def every(part: Callable[[str | None], Page[Item]], id: Callable[[Item], str]) -> Iterator[Item]:
    """All items of a list that is read in parts; `part` is that after an id."""
    after: str | None = None
    while True:
        page = part(after)
        yield from page.items
        if not page.more:
            return
        after = id(page.items[-1])


def names(
    models: Sequence[str] | None, providers: Sequence[str] | None
) -> dict[str, tuple[str, ...] | None]:
    """The models and providers that are typed, each once; without those that are not.

    Exits with status 1 for what no request could name: such a restriction would allow nothing.
    """
    typed = {"models": models, "providers": providers}
    chosen = {
        field: None if list(each) == [ANY] else tuple(dict.fromkeys(each))
        for field, each in typed.items()
        if each
    }
    if any(chosen.values()):
        _check(chosen.get("models") or (), chosen.get("providers") or ())
    return chosen


def _check(models: Sequence[str], providers: Sequence[str]) -> None:
    catalog = load_catalog(config.load())
    enabled = [LOCAL, *catalog.offers]
    for name in providers:
        if name not in enabled:
            fail(f"--provider {name!r} is not enabled here; there are {', '.join(enabled)}.")
    for name in models:
        try:
            find(name, catalog, param="model")
        except UnknownModel as error:
            fail(f"--model {name!r} is not possible. {error.message}")


def given(**fields: Any) -> dict[str, Any]:
    """The fields that are not None."""
    return {name: value for name, value in fields.items() if value is not None}


def ask(question: str, *, yes: bool) -> None:
    """Goes on if a person at the terminal wants it, or said so with `--yes`; asks no script.

    Exits with status 1 if not.
    """
    if not yes and sys.stdin.isatty():
        typer.confirm(question, abort=True)


def print_record(record: Mapping[str, object]) -> None:
    """Prints a line for each field that has something to say."""
    widest = max(map(len, record))
    for name, value in record.items():
        if value is not None:
            out.print(f"[bold]{name.replace('_', ' '):{widest}}[/bold]  {escape(str(value))}")


def spent(acts: Acts, actor: Actor, subject: Subject, budgets: Sequence[Budget]) -> list[str]:
    """Each budget as it is typed, with what is spent of it in its window."""
    amounts = acts.spent(actor, subject, budgets)
    return [f"{shown_budget(each)} ({as_usd(amounts[each])} USD spent)" for each in budgets]


def joined(values: Sequence[str] | None, *, none: str = ANY) -> str:
    """Names, with commas between; `none` if any may be."""
    return none if values is None else ", ".join(values)


def time(at_ms: int | None) -> str | None:
    """A time for people, in UTC."""
    if at_ms is None:
        return None
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
