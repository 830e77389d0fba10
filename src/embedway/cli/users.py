"""`embedway users`: the end users that a project treats unlike the others."""

from functools import partial
from typing import Annotated, Any

import typer

from embedway.cli.administration import (
    OfProject,
    all_pages,
    open_service,
    record_json,
    spending,
    time,
)
from embedway.cli.fields import END_USER, Changes, with_alerts, with_fields
from embedway.cli.limits_and_budgets import format_amounts
from embedway.cli.terminal import (
    AsJson,
    escape,
    fail,
    out,
    print_json,
    print_record,
    print_table,
    reject,
)
from embedway.core.errors import InvalidRequest, NotFound
from embedway.core.project import EndUser
from embedway.core.request import MAX_ATTRIBUTION_CHARACTERS
from embedway.organization.rules import check_end_user_id
from embedway.organization.service import AdminService


def _check_id(id: str) -> str:
    try:
        return check_end_user_id(id)
    except InvalidRequest:
        reject(
            f"ID {id!r} is not possible: use 1 to {MAX_ATTRIBUTION_CHARACTERS} characters of UTF-8."
        )


EndUserId = Annotated[
    str,
    typer.Argument(
        metavar="ID",
        callback=_check_id,
        help="The end user, as in X-On-Behalf-Of or `user` of its requests.",
    ),
]

commands = typer.Typer(
    no_args_is_help=True, help="End users with limits of their own, or who are blocked."
)


@commands.command("list")
def list_users(project: OfProject, as_json: AsJson = False) -> None:
    """List the end users with a record in a project; its own rules hold for all others."""
    acts, actor = open_service()
    of = acts.find_project(actor, project).id
    to_row = partial(_json, acts) if as_json else _row
    print_table(
        [to_row(each) for each in all_pages(acts.end_users, actor, of)],
        empty="No end user has a record.",
        as_json=as_json,
    )


@commands.command()
def show(end_user: EndUserId, project: OfProject, as_json: AsJson = False) -> None:
    """Show an end user, with or without a record: what is spent and left of its budgets."""
    acts, actor = open_service()
    of = acts.find_project(actor, project).id
    found = acts.end_user(actor, of, end_user)
    if as_json:
        print_json(_json(acts, found))
        return
    whose = f"{format_amounts(None)}: " if found.budgets is None else ""
    print_record(
        {
            "id": found.id,
            "project": of,
            "created": time(found.created_ms) or "none: it is as all others",
            "blocked": time(found.blocked_ms) or "no",
            "limits": format_amounts(found.limits),
            "budgets": f"{whose}{spending(acts, found)}",
        }
    )


@commands.command("set")
@with_fields(END_USER, update="embedway users set")
def set_user(end_user: EndUserId, project: OfProject, changes: Changes) -> None:
    """Give an end user limits and budgets of its own, instead of those that the project has.

    embedway users set alice --project web --limit requests=100/minute --budget 2/day

    embedway users set alice --project web --limit none --budget project

    `none` is no limit at all; `project` is what the project has for each end user.
    """
    _set(end_user, project, changes)
    out.print(f"{escape(end_user)} is changed.")


@commands.command()
def block(end_user: EndUserId, project: OfProject) -> None:
    """Refuse all requests for an end user, within a second."""
    _set(end_user, project, {"blocked": True})
    out.print(f"{escape(end_user)} is blocked.")


@commands.command()
def unblock(end_user: EndUserId, project: OfProject) -> None:
    """Answer requests for an end user again."""
    _set(end_user, project, {"blocked": False})
    out.print(f"{escape(end_user)} is not blocked.")


@commands.command()
def remove(end_user: EndUserId, project: OfProject) -> None:
    """Remove the record: the end user is as all others of the project. Its usage is kept."""
    acts, actor = open_service()
    of = acts.find_project(actor, project).id
    try:
        acts.remove_end_user(actor, of, end_user)
    except NotFound as error:
        fail(f"{error} To see who has one: embedway users list --project {of}")
    out.print(f"{escape(end_user)} has no record any more.")


def _set(end_user: str, project: str, changes: Changes) -> None:
    acts, actor = open_service()
    of = acts.find_project(actor, project).id
    changes = with_alerts(changes, END_USER, acts.end_user(actor, of, end_user))
    acts.set_end_user(actor, of, end_user, changes)


def _json(acts: AdminService, user: EndUser) -> dict[str, Any]:
    return record_json(acts, user, blocked=user.blocked_ms is not None)


def _row(user: EndUser) -> dict[str, str | None]:
    return {
        "id": user.id,
        "blocked": time(user.blocked_ms),
        "limits": format_amounts(user.limits),
        "budgets": format_amounts(user.budgets),
    }
