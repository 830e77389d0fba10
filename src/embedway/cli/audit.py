"""`embedway audit`: shows who changed projects, keys and end users."""

from datetime import UTC, datetime
from typing import Annotated

import orjson
import typer

from embedway.cli import options
from embedway.cli.administration import format_time, open_service
from embedway.cli.terminal import AsJson, print_table, reject
from embedway.organization.audit_store import ACTIONS, AuditFilter

MAX_SHOWN = 1000


def audit(
    project: Annotated[
        str | None, typer.Option(metavar="ID|NAME", help="Only changes in this project.")
    ] = None,
    actor: Annotated[
        str | None, typer.Option(help="Only changes by this key id, or by cli:USER.")
    ] = None,
    action: Annotated[
        list[str] | None,
        typer.Option("--action", help="Only this action, such as api_key.created. Repeatable."),
    ] = None,
    since: Annotated[
        datetime | None,
        options.time("--since", help="From this time on, in UTC, such as 2026-11-01."),
    ] = None,
    limit: Annotated[
        int,
        options.whole_number(
            "--limit", least=1, most=MAX_SHOWN, example=50, help="Show at most N."
        ),
    ] = 50,
    as_json: AsJson = False,
) -> None:
    """Show who changed projects, keys and end users, latest first.

    embedway audit --project web --since 2026-01-01

    embedway audit --action api_key.created --json
    """
    for each in action or ():
        if each not in ACTIONS:
            reject(f"--action {each!r} is not possible. Choose from: {', '.join(ACTIONS)}.")
    service, operator = open_service()
    filters = AuditFilter(
        actions=action or (),
        project_ids=(service.find_project(operator, project).id,) if project else (),
        actors=(actor,) if actor else (),
        since_ms=round(since.replace(tzinfo=UTC).timestamp() * 1000) if since else None,
    )
    rows = [
        {
            "effective_at": each.at_ms // 1000 if as_json else format_time(each.at_ms),
            "actor": each.actor,
            "action": each.action,
            "project_id" if as_json else "project": each.project_id,
            "target": each.target,
            "details": each.details if as_json else orjson.dumps(each.details).decode(),
        }
        for each in service.list_audit_events(operator, filters, after=None, limit=limit).items
    ]
    empty = "No changes yet." if filters == AuditFilter() else "No such changes."
    print_table(rows, empty=empty, as_json=as_json)
