"""Shared by the commands that manage projects, keys and end users."""

import getpass
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

import typer

from embedway.cli.fields import ANY
from embedway.cli.limits_and_budgets import format_alerts, format_budget
from embedway.cli.setup import open_store
from embedway.cli.terminal import fail
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
"""The number of records to read at a time."""

Item = TypeVar("Item", Project, Key, EndUser)

ProjectOption = Annotated[
    str, typer.Option("--project", metavar="ID|NAME", help="The project, by its id or name.")
]

Yes = Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")]


def open_service() -> tuple[AdminService, Actor]:
    """Return the service that changes records, and the operating system's user as its actor."""
    store = open_store()
    try:
        user = getpass.getuser()
    except (OSError, KeyError, ImportError):
        user = "unknown"
    service = AdminService(store.database, pepper=store.pepper, now_ms=now_ms)
    return service, Actor.at_command_line(user)


def all_pages(read: Callable[..., Page[Item]], *arguments: Any, **options: Any) -> Iterator[Item]:
    """Yield all items of a list that `read` returns page by page."""
    after: str | None = None
    while True:
        page = read(*arguments, after=after, limit=PAGE, **options)
        yield from page.items
        if not page.more:
            return
        after = page.items[-1].id


def confirm(question: str, *, yes: bool, again: str | None = None) -> None:
    """Ask at a terminal whether to go on, unless `yes`, and exit with status 1 if not.

    A script is not asked: the command goes on, or ends with status 1 if `again` is given, the
    command to run instead, with `--yes`.
    """
    if yes:
        return
    if sys.stdin.isatty():
        typer.confirm(question, abort=True)
    elif again:
        fail(f"{question} Nothing is changed: nobody is there to answer. Run: {again}")


def format_spending(service: AdminService, record: Project | Key | EndUser) -> str:
    """Return each budget of `record` with the amounts spent and left, and its alerts."""
    budgets: list[str] = []
    for each in service.get_budget_spending(record):
        spent, left = format_usd(each.spent_nano_usd), format_usd(each.left_nano_usd)
        amounts = f"{spent} USD spent, {left} USD left"
        if each.ends_ms is not None:
            amounts += f" until {format_time(each.ends_ms)}"
        budgets.append(f"{format_budget(each.budget)} ({amounts}{format_alerts(each.budget)})")
    return ", ".join(budgets) or "none"


def record_json(
    service: AdminService, record: Project | Key | EndUser, **more: object
) -> dict[str, Any]:
    """Return a record as the admin API does, with the spending of its budgets."""
    spending = public_spending(service.get_budget_spending(record))
    return public(records.to_row(record)) | more | {"spending": spending}


def join_names(values: Sequence[str] | None) -> str:
    """Return the names with commas between them, or `any` for None."""
    return ANY if values is None else ", ".join(values)


def format_time(at_ms: int | None) -> str | None:
    """Return a time in UTC for people to read, or None for None."""
    if at_ms is None:
        return None
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
