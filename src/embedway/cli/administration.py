"""Who runs a command, and what the commands that administer have in common."""

import getpass
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

import typer

from embedway.cli.fields import ANY
from embedway.cli.limits_and_budgets import format_alerts, format_budget
from embedway.cli.terminal import fail, load_store
from embedway.core.clock import now_ms
from embedway.core.keys import Key
from embedway.core.money import format_usd
from embedway.core.page import Page
from embedway.core.project import EndUser, Project
from embedway.organization.actors import Actor
from embedway.organization.public_fields import public, public_spending
from embedway.organization.service import AdminService
from embedway.storage import records

PAGE = 100
"""How many are read at a time."""

Item = TypeVar("Item", Project, Key, EndUser)

OfProject = Annotated[
    str, typer.Option("--project", metavar="ID|NAME", help="The project, by its id or name.")
]

Yes = Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")]


def open_service() -> tuple[AdminService, Actor]:
    """What can be done, and by whom: the user of the operating system, an administrator."""
    store = load_store()
    try:
        user = getpass.getuser()
    except (OSError, KeyError, ImportError):
        user = "unknown"
    return AdminService(store.database, pepper=store.pepper, now_ms=now_ms), Actor.at_command_line(
        user
    )


def all_pages(read: Callable[..., Page[Item]], *arguments: Any, **options: Any) -> Iterator[Item]:
    """All items of a list that `read` reads page by page."""
    after: str | None = None
    while True:
        page = read(*arguments, after=after, limit=PAGE, **options)
        yield from page.items
        if not page.more:
            return
        after = page.items[-1].id


def confirm(question: str, *, yes: bool, again: str | None = None) -> None:
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
        fail(f"{question} Nothing is changed: nobody is there to answer. Run: {again}")


def spending(acts: AdminService, record: Project | Key | EndUser) -> str:
    """Each budget of `record` as it is typed, with its alerts and what is spent and left of it."""
    shown: list[str] = []
    for each in acts.budget_spending(record):
        spent, left = format_usd(each.spent_nano_usd), format_usd(each.left_nano_usd)
        said = f"{spent} USD spent, {left} USD left"
        if each.ends_ms is not None:
            said += f" until {time(each.ends_ms)}"
        shown.append(f"{format_budget(each.budget)} ({said}{format_alerts(each.budget)})")
    return ", ".join(shown) or "none"


def record_json(
    acts: AdminService, record: Project | Key | EndUser, **more: object
) -> dict[str, Any]:
    """A record as the admin API answers it, with what is spent and left of its budgets."""
    spent = public_spending(acts.budget_spending(record))
    return public(records.to_row(record)) | more | {"spending": spent}


def join_names(values: Sequence[str] | None) -> str:
    """Names, with commas between; `any` if there is no list of them."""
    return ANY if values is None else ", ".join(values)


def time(at_ms: int | None) -> str | None:
    """A time for people, in UTC."""
    if at_ms is None:
        return None
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
