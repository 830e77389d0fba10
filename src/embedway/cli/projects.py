"""`embedway projects`: make, list, show, change and archive projects."""

from functools import partial
from typing import Annotated, Any

import typer

from embedway.cli.administration import (
    Yes,
    all_pages,
    confirm,
    join_names,
    open_service,
    record_json,
    spending,
    time,
)
from embedway.cli.fields import PROJECT, Changes, with_alerts, with_fields
from embedway.cli.limits_and_budgets import format_alerts, format_amounts, format_budget
from embedway.cli.plural import count_of
from embedway.cli.terminal import AsJson, out, print_json, print_record, print_table
from embedway.core.clock import now_ms
from embedway.core.project import Project
from embedway.organization.actors import Actor
from embedway.organization.service import AdminService

Which = Annotated[str, typer.Argument(metavar="ID|NAME", help="The project, by its id or name.")]

UNKNOWN = 0
"""When the default project was created, in databases that older versions made."""

commands = typer.Typer(
    no_args_is_help=True, help="Projects: tenants with keys, end users, limits and budgets."
)


@commands.command()
@with_fields(PROJECT)
def create(
    changes: Changes,
    as_json: Annotated[bool, typer.Option("--json", help="Print only the id.")] = False,
) -> None:
    """Make a project. Its limits and budgets hold for all its requests together.

    embedway projects create --name web

    embedway projects create --name web --limit requests=600/minute --limit tokens=1000000/day

    embedway projects create --name web --budget 25/month --budget 2/day --alert 80 --alert 100

    embedway projects create --name web --user-limit requests=10/second --user-budget 0.5/day
    """
    acts, actor = open_service()
    project = acts.create_project(actor, changes, unique=True)
    if as_json:
        print_json({"id": project.id})
        return
    out.print(project.id)


@commands.command("list")
def list_projects(
    archived: Annotated[
        bool, typer.Option("--archived", help="List archived projects too.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List projects, oldest first."""
    acts, actor = open_service()
    to_row = partial(_json, acts) if as_json else _row
    print_table(
        [to_row(each) for each in all_pages(acts.projects, actor, archived=archived)],
        empty="No projects: embedway projects create --name NAME",
        as_json=as_json,
    )


@commands.command()
def show(project: Which, as_json: AsJson = False) -> None:
    """Show a project: its rules, its limits, and what is spent and left of its budgets."""
    acts, actor = open_service()
    found = acts.find_project(actor, project)
    if as_json:
        print_json(_json(acts, found))
        return
    user_budgets = (f"{format_budget(each)}{format_alerts(each)}" for each in found.user_budgets)
    print_record(
        _facts(found)
        | {
            "archived": time(found.archived_ms),
            "models": join_names(found.models),
            "providers": join_names(found.providers),
            "rules": join_names(_rules(found)) or "none",
            "limits": format_amounts(found.limits),
            "budgets": spending(acts, found),
            "limits of each end user": format_amounts(found.user_limits),
            "budgets of each end user": ", ".join(user_budgets) or "none",
        }
    )


@commands.command()
@with_fields(PROJECT, update="embedway projects update")
def update(project: Which, changes: Changes) -> None:
    """Change what the options say, and nothing else; running gateways follow within a second.

    Limits, budgets, models or providers that you give replace all that the project had. A budget
    keeps its alerts unless --alert gives others.

    embedway projects update web --budget 50/month

    embedway projects update web --alert 80 --alert 100

    embedway projects update web --limit none --model any
    """
    acts, actor = open_service()
    found = acts.find_project(actor, project)
    acts.update_project(actor, found.id, with_alerts(changes, PROJECT, found), unique=True)
    out.print(f"{found.id} is changed.")


@commands.command()
def archive(project: Which, yes: Yes = False) -> None:
    """Archive a project for good: its keys stop working within a second; its usage is kept.

    At a terminal it asks first.
    """
    acts, actor = open_service()
    found = acts.find_project(actor, project)
    if found.archived_ms is None:
        keys = count_of(_working(acts, actor, found), "working key")
        confirm(f"Archive {found.name} ({found.id}) for good? This ends {keys}.", yes=yes)
    acts.archive_project(actor, found.id)
    out.print(f"{found.id} is archived.")


def _working(acts: AdminService, actor: Actor, project: Project) -> int:
    """How many of its keys work now: an issued one does with its issuer."""
    keys = all_pages(acts.keys, actor, project_id=project.id)
    active = {key.id: key.issued_by for key in keys if key.state(now_ms()) == "active"}
    return sum(issuer is None or issuer in active for issuer in active.values())


def _json(acts: AdminService, project: Project) -> dict[str, Any]:
    unknown = {"created_at": None} if project.created_ms == UNKNOWN else {}
    return record_json(acts, project, **unknown, status=_status(project))


def _row(project: Project) -> dict[str, str | None]:
    limits, budgets = (
        format_amounts(project.limits, empty=""),
        format_amounts(project.budgets, empty=""),
    )
    return _facts(project) | {"limits": limits, "budgets": budgets}


def _facts(project: Project) -> dict[str, str | None]:
    return {
        "id": project.id,
        "name": project.name,
        "status": _status(project),
        "created": "-" if project.created_ms == UNKNOWN else time(project.created_ms),
    }


def _status(project: Project) -> str:
    return "active" if project.archived_ms is None else "archived"


def _rules(project: Project) -> list[str]:
    rules = {
        "eu_native": project.eu_native,
        "zero_data_retention": project.zero_data_retention,
        "no quantised weights": not project.allow_quantization,
    }
    return [rule for rule, holds in rules.items() if holds]
