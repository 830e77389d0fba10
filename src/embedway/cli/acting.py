"""Who runs a command, and what the commands that administer have in common."""

import getpass
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

import typer

from embedway.admin.actors import Actor
from embedway.admin.acts import Acts
from embedway.admin.amounts import spending_cards
from embedway.admin.rules import MAX_NAME_CHARACTERS, visible
from embedway.catalog.catalog import LOCAL
from embedway.cli.amounts import shown_alerts, shown_budget
from embedway.cli.terminal import escape, explain, fail, load_catalog, load_store, out, reject
from embedway.config import settings as config
from embedway.core.clock import now_ms
from embedway.core.errors import UnknownModel
from embedway.core.keys import Key
from embedway.core.money import as_usd
from embedway.core.pages import Page
from embedway.core.projects import EndUser, Project
from embedway.routing.resolve import find

ANY = "any"
"""Typed in place of names, to allow all."""
PAGE = 100
"""How many are read at a time."""

Item = TypeVar("Item")

ModelOption = Annotated[
    list[str] | None,
    typer.Option("--model", help="A model it may use, by any name; 'any' for all. Repeatable."),
]
ProviderOption = Annotated[
    list[str] | None,
    typer.Option("--provider", help="A provider that may serve it; 'any' for all. Repeatable."),
]
OfProject = Annotated[
    str, typer.Option("--project", metavar="ID|NAME", help="The project, by its id or name.")
]

Yes = Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")]


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
    Exits with status 2 for `any` beside other names.
    """
    typed = {"models": models, "providers": providers}
    for field, each in typed.items():
        if each and ANY in each and len(each) > 1:
            others = ", ".join(repr(name) for name in each if name != ANY)
            option = f"--{field.removesuffix('s')}"
            reject(f"{option} {ANY!r} allows all, so it excludes {others}. Leave one of them out.")
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
            fail(
                f"--provider {name!r} is not enabled here. Enabled: {', '.join(enabled)}. To see "
                "how to enable one: embedway providers list --all"
            )
    for name in models:
        try:
            find(name, catalog, param="model")
        except UnknownModel as error:
            fail(f"--model {name!r} is not possible. {explain(error)}")


def given(**fields: Any) -> dict[str, Any]:
    """The fields that are not None."""
    return {name: value for name, value in fields.items() if value is not None}


def ask(question: str, *, yes: bool, again: str | None = None) -> None:
    """Goes on if a person at the terminal wants it, or said so with `--yes`; asks no script.

    Exits with status 1 if not.

    Args:
        question: What to ask.
        yes: Whether `--yes` was said.
        again: The command for a script to run, which then goes no further; None if it goes on.
    """
    if yes:
        return
    if sys.stdin.isatty():
        typer.confirm(question, abort=True)
    elif again:
        fail(f"Nothing is changed: nobody is there to ask. Run: {again}")


def print_record(record: Mapping[str, object]) -> None:
    """Prints a line for each field that has something to say."""
    widest = max(map(len, record))
    for name, value in record.items():
        if value is not None:
            out.print(f"[bold]{name.replace('_', ' '):{widest}}[/bold]  {escape(str(value))}")


def check_name(name: str | None) -> None:
    """Exit with status 2 for a name that nobody could read in a list."""
    if name is not None and not visible(name):
        reject(
            f"--name {name!r} is not possible: use 1 to {MAX_NAME_CHARACTERS} visible characters."
        )


def spending(acts: Acts, record: Project | Key | EndUser) -> str:
    """Each budget of `record` as it is typed, with its alerts and what is spent and left of it."""
    shown: list[str] = []
    for each in acts.spending(record):
        said = f"{as_usd(each.spent_nano_usd)} USD spent, {as_usd(each.left_nano_usd)} USD left"
        if each.ends_ms is not None:
            said += f" until {time(each.ends_ms)}"
        shown.append(f"{shown_budget(each.budget)} ({said}{shown_alerts(each.budget)})")
    return ", ".join(shown) or "none"


def spending_json(acts: Acts, record: Project | Key | EndUser) -> list[dict[str, Any]]:
    """What is spent and left of each budget of `record`, as the admin API answers it."""
    return [each.model_dump() for each in spending_cards(acts.spending(record))]


def joined(values: Sequence[str] | None, *, none: str = ANY) -> str:
    """Names, with commas between; `none` if any may be."""
    return none if values is None else ", ".join(values)


def time(at_ms: int | None) -> str | None:
    """A time for people, in UTC."""
    if at_ms is None:
        return None
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
