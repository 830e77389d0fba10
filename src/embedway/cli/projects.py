"""`embedway projects`: creates, lists, shows, changes and archives projects."""

from typing import Annotated, Any

import typer

from embedway.cli.administration import (
    Yes,
    all_pages,
    confirm,
    format_spending,
    format_time,
    join_names,
    open_service,
    record_json,
)
from embedway.cli.fields import PROJECT_FIELDS, Changes, with_alerts, with_fields
from embedway.cli.limits_and_budgets import format_alerts, format_amounts, format_budget
from embedway.cli.terminal import AsJson, count_of, print_json, print_record, print_table, say
from embedway.core.clock import now_ms
from embedway.core.project import Project
from embedway.organization.actors import Actor
from embedway.organization.service import AdminService

ProjectArgument = Annotated[
    str, typer.Argument(metavar="ID|NAME", help="The project, by its id or name.")
]

UNKNOWN_MS = 0
"""The creation time of the default project in databases that older versions made."""

commands = typer.Typer(
    no_args_is_help=True,
    help="Manage projects: tenants with keys, end users, limits and budgets.",
)


@commands.command()
@with_fields(PROJECT_FIELDS)
def create(
    changes: Changes,
    as_json: Annotated[bool, typer.Option("--json", help="Print only the id.")] = False,
) -> None:
    """Make a project. Its limits and budgets apply to all its requests together.

    embedway projects create --name web

    embedway projects create --name web --limit requests=600/minute --limit tokens=1000000/day

    embedway projects create --name web --budget 25/month --budget 2/day --alert 80 --alert 100

    embedway projects create --name web --user-limit requests=10/second --user-budget 0.5/day
    """
    service, actor = open_service()
    project = service.create_project(actor, changes, unique=True)
    if as_json:
        print_json({"id": project.id})
    else:
        say(project.id)


@commands.command("list")
def list_projects(
    archived: Annotated[
        bool, typer.Option("--archived", help="List archived projects too.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List projects, oldest first."""
    service, actor = open_service()
    projects = all_pages(service.list_projects, actor, archived=archived)
    print_table(
        [_to_json(service, each) if as_json else _to_row(each) for each in projects],
        empty="No projects: embedway projects create --name NAME",
        as_json=as_json,
    )


@commands.command()
def show(name: ProjectArgument, as_json: AsJson = False) -> None:
    """Show a project: its rules and limits, and what its budgets have spent and left."""
    service, actor = open_service()
    project = service.find_project(actor, name)
    if as_json:
        print_json(_to_json(service, project))
        return
    rules = {
        "eu_native": project.eu_native,
        "zero_data_retention": project.zero_data_retention,
        "no quantised weights": not project.allow_quantization,
    }
    user_budgets = (f"{format_budget(each)}{format_alerts(each)}" for each in project.user_budgets)
    print_record(
        _facts(project)
        | {
            "archived": format_time(project.archived_ms),
            "models": join_names(project.models),
            "providers": join_names(project.providers),
            "rules": join_names([name for name, applies in rules.items() if applies]) or "none",
            "limits": format_amounts(project.limits),
            "budgets": format_spending(service, project),
            "limits of each end user": format_amounts(project.user_limits),
            "budgets of each end user": ", ".join(user_budgets) or "none",
        }
    )


@commands.command()
@with_fields(PROJECT_FIELDS, update="embedway projects update")
def update(current_name: ProjectArgument, changes: Changes) -> None:
    """Change only what the options name. Running gateways follow within a second.

    Limits, budgets, models or providers that you type replace all previous ones. A budget keeps its
    alerts unless you type --alert.

    embedway projects update web --budget 50/month

    embedway projects update web --alert 80 --alert 100

    embedway projects update web --limit none --model any
    """
    service, actor = open_service()
    project = service.find_project(actor, current_name)
    service.update_project(
        actor, project.id, with_alerts(changes, PROJECT_FIELDS, project), unique=True
    )
    say(f"{project.id} is changed.")


@commands.command()
def archive(name: ProjectArgument, yes: Yes = False) -> None:
    """Archive a project for good. Its keys stop working within a second; its usage is kept.

    The command asks first at a terminal, unless you add --yes.
    """
    service, actor = open_service()
    project = service.find_project(actor, name)
    if project.archived_ms is None:
        keys = count_of(_count_working_keys(service, actor, project), "working key")
        confirm(f"Archive {project.name} ({project.id}) for good? This ends {keys}.", yes=yes)
    service.archive_project(actor, project.id)
    say(f"{project.id} is archived.")


def _count_working_keys(service: AdminService, actor: Actor, project: Project) -> int:
    """Count the keys that work now. An issued key works only while its issuing key does."""
    keys = all_pages(service.list_keys, actor, project_id=project.id)
    active = {key.id: key.issued_by for key in keys if key.state(now_ms()) == "active"}
    return sum(issuer is None or issuer in active for issuer in active.values())


def _to_json(service: AdminService, project: Project) -> dict[str, Any]:
    unknown = {"created_at": None} if project.created_ms == UNKNOWN_MS else {}
    return record_json(service, project, **unknown, status=_status(project))


def _to_row(project: Project) -> dict[str, str | None]:
    return _facts(project) | {
        "limits": format_amounts(project.limits, empty=""),
        "budgets": format_amounts(project.budgets, empty=""),
    }


def _facts(project: Project) -> dict[str, str | None]:
    return {
        "id": project.id,
        "name": project.name,
        "status": _status(project),
        "created": "-" if project.created_ms == UNKNOWN_MS else format_time(project.created_ms),
    }


def _status(project: Project) -> str:
    return "active" if project.archived_ms is None else "archived"
