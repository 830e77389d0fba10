"""`embedway users`: the end users that a project treats unlike the others."""

from typing import Annotated, Any

import typer

from embedway.admin.acts import Acts, Changes
from embedway.admin.public_fields import public
from embedway.admin.rules import end_user_id
from embedway.cli.acting import (
    PAGE,
    OfProject,
    acting,
    every,
    given,
    joined,
    print_record,
    spending,
    spending_json,
    time,
)
from embedway.cli.amounts import (
    PROJECT,
    AlertOption,
    BudgetOption,
    LimitOption,
    budgets,
    limits,
    realerted,
    shown_budget,
    shown_limit,
)
from embedway.cli.terminal import AsJson, escape, fail, out, print_json, print_table, reject
from embedway.core.budgets import Budget
from embedway.core.errors import InvalidRequest, NotFound
from embedway.core.limits import Limit
from embedway.core.projects import EndUser
from embedway.core.request import MAX_ATTRIBUTION_CHARACTERS
from embedway.storage import records

AS_PROJECT = "as the project says"


def _check_id(id: str) -> str:
    try:
        return end_user_id(id)
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
    acts, actor = acting()
    of = acts.find_project(actor, project).id
    found = every(
        lambda after: acts.end_users(actor, of, after=after, limit=PAGE), lambda user: user.id
    )
    if as_json:
        print_json([_json(acts, each) for each in found])
        return
    rows = [
        {
            "id": each.id,
            "blocked": time(each.blocked_ms),
            "limits": _limits(each.limits),
            "budgets": _budgets(each.budgets),
        }
        for each in found
    ]
    print_table(rows, empty="No end user has a record.", as_json=False)


@commands.command()
def show(end_user: EndUserId, project: OfProject, as_json: AsJson = False) -> None:
    """Show an end user, with or without a record: what is spent and left of its budgets."""
    acts, actor = acting()
    of = acts.find_project(actor, project).id
    found = acts.end_user(actor, of, end_user)
    if as_json:
        print_json(_json(acts, found))
        return
    whose = f"{AS_PROJECT}: " if found.budgets is None else ""
    print_record(
        {
            "id": found.id,
            "project": of,
            "created": time(found.created_ms) or "none: it is as all others",
            "blocked": time(found.blocked_ms) or "no",
            "limits": _limits(found.limits),
            "budgets": f"{whose}{spending(acts, found)}",
        }
    )


@commands.command("set")
def set_user(
    end_user: EndUserId,
    project: OfProject,
    limit: LimitOption = None,
    budget: BudgetOption = None,
    alert: AlertOption = None,
) -> None:
    """Give an end user limits and budgets of its own, instead of those that the project has.

    embedway users set alice --project web --limit requests=100/minute --budget 2/day

    embedway users set alice --project web --limit none --budget project

    `none` is no limit at all; `project` is what the project has for each end user.
    """
    changes: dict[str, Any] = {}
    if limit:
        changes["limits"] = None if limit == [PROJECT] else limits(limit)
    if budget == [PROJECT]:
        if alert:
            reject(
                f"--budget {PROJECT!r} has the alerts of the project. Leave out --alert "
                f"{', '.join(map(repr, alert))}."
            )
        changes["budgets"] = None
    elif budget:
        changes["budgets"] = budgets(budget, alerts=alert)
    elif not (changes or alert):
        reject("Give --limit, --budget or --alert, as this shows: embedway users set --help")
    acts, actor = acting()
    of = acts.find_project(actor, project).id
    if alert and not budget:
        changes["budgets"] = realerted(acts.end_user(actor, of, end_user).budgets or (), alert)
    acts.set_end_user(actor, of, end_user, changes)
    out.print(f"{escape(end_user)} is changed.")


@commands.command()
def block(end_user: EndUserId, project: OfProject) -> None:
    """Refuse all requests for an end user, within a second."""
    _set(end_user, project, given(blocked=True))
    out.print(f"{escape(end_user)} is blocked.")


@commands.command()
def unblock(end_user: EndUserId, project: OfProject) -> None:
    """Answer requests for an end user again."""
    _set(end_user, project, given(blocked=False))
    out.print(f"{escape(end_user)} is not blocked.")


@commands.command()
def remove(end_user: EndUserId, project: OfProject) -> None:
    """Remove the record: the end user is as all others of the project. Its usage is kept."""
    acts, actor = acting()
    of = acts.find_project(actor, project).id
    try:
        acts.remove_end_user(actor, of, end_user)
    except NotFound as error:
        fail(f"{error} To see who has one: embedway users list --project {of}")
    out.print(f"{escape(end_user)} has no record any more.")


def _set(end_user: str, project: str, changes: Changes) -> None:
    acts, actor = acting()
    acts.set_end_user(actor, acts.find_project(actor, project).id, end_user, changes)


def _json(acts: Acts, user: EndUser) -> dict[str, Any]:
    told = {"blocked": user.blocked_ms is not None, "spending": spending_json(acts, user)}
    return public(records.row(user)) | told


def _limits(limits: tuple[Limit, ...] | None) -> str:
    if limits is None:
        return AS_PROJECT
    return joined([shown_limit(each) for each in limits]) or "none"


def _budgets(budgets: tuple[Budget, ...] | None) -> str:
    if budgets is None:
        return AS_PROJECT
    return joined([shown_budget(each) for each in budgets]) or "none"
