"""`embedway users`: manages the end users that have limits of their own or are blocked."""

from typing import Annotated, Any

import typer

from embedway.cli.administration import (
    ProjectOption,
    all_pages,
    format_spending,
    format_time,
    open_service,
    record_json,
)
from embedway.cli.fields import END_USER_FIELDS, Changes, with_alerts, with_fields
from embedway.cli.limits_and_budgets import format_amounts
from embedway.cli.terminal import AsJson, fail, print_json, print_record, print_table, reject, say
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
        help="The end user's id, as requests send it in X-On-Behalf-Of or `user`.",
    ),
]

commands = typer.Typer(
    no_args_is_help=True, help="Manage end users that have limits of their own or are blocked."
)


@commands.command("list")
def list_users(project: ProjectOption, as_json: AsJson = False) -> None:
    """List the end users of a project that have a record. The project's rules apply to the rest."""
    service, actor = open_service()
    project_id = service.find_project(actor, project).id
    users = all_pages(service.list_end_users, actor, project_id)
    print_table(
        [_to_json(service, each) if as_json else _to_row(each) for each in users],
        empty="No end user has a record.",
        as_json=as_json,
    )


@commands.command()
def show(end_user: EndUserId, project: ProjectOption, as_json: AsJson = False) -> None:
    """Show an end user, with or without a record, and what its budgets have spent and left."""
    service, actor = open_service()
    project_id = service.find_project(actor, project).id
    record = service.get_end_user(actor, project_id, end_user)
    if as_json:
        print_json(_to_json(service, record))
        return
    source = f"{format_amounts(None)}: " if record.budgets is None else ""
    print_record(
        {
            "id": record.id,
            "project": project_id,
            "created": format_time(record.created_ms) or "none: it is like all others",
            "blocked": format_time(record.blocked_ms) or "no",
            "limits": format_amounts(record.limits),
            "budgets": f"{source}{format_spending(service, record)}",
        }
    )


@commands.command("set")
@with_fields(END_USER_FIELDS, update="embedway users set")
def set_user(end_user: EndUserId, project: ProjectOption, changes: Changes) -> None:
    """Give an end user limits and budgets of its own, instead of those that the project sets.

    embedway users set alice --project web --limit requests=100/minute --budget 2/day

    embedway users set alice --project web --limit none --budget project

    `none` means no limit at all; `project` means what the project sets for each end user.
    """
    _change(end_user, project, changes)
    say(f"{end_user} is changed.")


@commands.command()
def block(end_user: EndUserId, project: ProjectOption) -> None:
    """Refuse all requests for an end user, within a second."""
    _change(end_user, project, {"blocked": True})
    say(f"{end_user} is blocked.")


@commands.command()
def unblock(end_user: EndUserId, project: ProjectOption) -> None:
    """Accept requests for an end user again."""
    _change(end_user, project, {"blocked": False})
    say(f"{end_user} is not blocked.")


@commands.command()
def remove(end_user: EndUserId, project: ProjectOption) -> None:
    """Remove the record: the end user is like all others of the project. Its usage is kept."""
    service, actor = open_service()
    project_id = service.find_project(actor, project).id
    try:
        service.remove_end_user(actor, project_id, end_user)
    except NotFound as error:
        fail(f"{error} To see who has one: embedway users list --project {project_id}")
    say(f"{end_user} has no record any more.")


def _change(end_user: str, project: str, changes: Changes) -> None:
    service, actor = open_service()
    project_id = service.find_project(actor, project).id
    changes = with_alerts(
        changes, END_USER_FIELDS, service.get_end_user(actor, project_id, end_user)
    )
    service.set_end_user(actor, project_id, end_user, changes)


def _to_json(service: AdminService, user: EndUser) -> dict[str, Any]:
    return record_json(service, user, blocked=user.blocked_ms is not None)


def _to_row(user: EndUser) -> dict[str, str | None]:
    return {
        "id": user.id,
        "blocked": format_time(user.blocked_ms),
        "limits": format_amounts(user.limits),
        "budgets": format_amounts(user.budgets),
    }
