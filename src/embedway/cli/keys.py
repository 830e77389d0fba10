"""`embedway keys`: creates, lists, shows, changes, rotates and revokes API keys."""

import re
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
from embedway.cli.fields import KEY_FIELDS, KEY_UPDATE_FIELDS, Changes, with_alerts, with_fields
from embedway.cli.limits_and_budgets import format_amounts
from embedway.cli.terminal import (
    AsJson,
    count_of,
    print_json,
    print_record,
    print_table,
    reject,
    say,
)
from embedway.core.clock import now_ms
from embedway.core.keys import Key
from embedway.core.project import DEFAULT_PROJECT
from embedway.ledger.rollups import DAY_MS
from embedway.organization.actors import Actor
from embedway.organization.public_fields import public
from embedway.organization.rules import MAX_GRACE_S
from embedway.organization.service import AdminService

ADMIN_FIELDS = {"name", "expires_days"}
"""The fields that an admin key can have."""
_DURATION = re.compile(r"([0-9]{1,9})([smhd])", re.ASCII)
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

KeyId = Annotated[
    str, typer.Argument(metavar="ID", help="The key's id, as `embedway keys list` shows it.")
]
commands = typer.Typer(no_args_is_help=True, help="Make, list, change, rotate and revoke API keys.")


@commands.command()
@with_fields(KEY_FIELDS)
def create(
    changes: Changes,
    project: Annotated[
        str | None,
        typer.Option(metavar="ID|NAME", help="The key's project. [the default project]"),
    ] = None,
    admin: Annotated[
        bool,
        typer.Option(
            "--admin", help="Make an admin key, which manages everything but cannot embed."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print only the id and the key.")] = False,
) -> None:
    """Make a key and show it once. Only its hash is kept.

    embedway keys create --name search-team

    embedway keys create --name trial --expires-days 30 --json

    embedway keys create --name eu --model bge-m3 --model auto --provider mistral

    embedway keys create --name shop --project web --limit requests=600/minute --budget 25/month

    embedway keys create --name platform --admin
    """
    excluded = ["--project"] if project else []
    excluded += [KEY_FIELDS[each].option for each in sorted(changes.keys() - ADMIN_FIELDS)]
    if admin and excluded:
        reject(
            "--admin makes a key of no project that cannot embed, so it has no "
            f"{' or '.join(excluded)}. Leave one of them out."
        )
    service, actor = open_service()
    project_id = service.find_project(actor, project).id if project else DEFAULT_PROJECT
    secret, key = service.create_key(
        actor, project_id=None if admin else project_id, changes=_with_expiry(changes)
    )
    if as_json:
        print_json({"id": key.id, "key": secret})
        return
    say(f"id   {key.id}\nkey  {secret}  (shown this once)")


@commands.command("list")
def list_keys(
    project: Annotated[
        str | None, typer.Option(metavar="ID|NAME", help="Only keys of this project.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List all keys and their projects, oldest first; admin keys have `admin` for a project."""
    service, actor = open_service()
    if project:
        project_id = service.find_project(actor, project).id
        keys = all_pages(service.list_keys, actor, project_id=project_id, revoked=True)
    else:
        keys = all_pages(service.list_all_keys, actor)
    names = {each.id: each.name for each in all_pages(service.list_projects, actor, archived=True)}
    print_table(
        [_to_json(service, each) if as_json else _to_row(names, each) for each in keys],
        empty="No keys yet: embedway keys create --name NAME",
        as_json=as_json,
    )


@commands.command()
def show(key_id: KeyId, as_json: AsJson = False) -> None:
    """Show a key: its project, what it may do, and what its budgets have spent and left."""
    service, actor = open_service()
    key = service.find_key(actor, key_id)
    if as_json:
        print_json(_to_json(service, key))
        return
    print_record(
        _facts(key, key.project_id or "none: an admin key")
        | {
            "expires": format_time(key.expires_ms) or "never",
            "revoked": format_time(key.revoked_ms),
            "old secret expires": format_time(key.previous_expires_ms),
            "issued by": key.issued_by,
            "scopes": join_names(key.scopes),
            "models": join_names(key.models),
            "providers": join_names(key.providers),
            "limits": format_amounts(key.limits),
            "budgets": format_spending(service, key),
        }
    )


@commands.command()
@with_fields(KEY_UPDATE_FIELDS, update="embedway keys update")
def update(key_id: KeyId, changes: Changes) -> None:
    """Change only what the options name. Running gateways follow within a second.

    Limits, budgets, models, providers or scopes that you type replace all previous ones. A budget
    keeps its alerts unless you type --alert.

    embedway keys update key_dd348f3b1ed2fbc5 --limit requests=100/second --limit tokens=1000000/day

    embedway keys update key_dd348f3b1ed2fbc5 --limit none --budget none --model any
    """
    if "never_expires" in changes and "expires_days" in changes:
        days = f"{changes['expires_days']:g}"
        reject(f"--never-expires excludes --expires-days {days!r}. Leave one out.")
    service, actor = open_service()
    key = service.find_key(actor, key_id)
    changes = _with_expiry(with_alerts(changes, KEY_FIELDS, key))
    service.update_key(actor, key.id, project_id=key.project_id, changes=changes)
    say(f"{key_id} is changed.")


@commands.command()
def rotate(
    key_id: KeyId,
    grace: Annotated[
        str,
        typer.Option(
            metavar="DURATION",
            help="How long the old secret still works, such as 30m, 24h or 7d; 0 ends it at once.",
        ),
    ] = "24h",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the id, the key and when the old secret expires.")
    ] = False,
) -> None:
    """Give a key a new secret and show it once. The old secret works until the grace period ends.

    Nothing else changes: the key keeps its id, rights, limits and budgets, and what is used of
    them. If you rotate again within the grace period, the older of its two secrets ends at once.

    embedway keys rotate key_dd348f3b1ed2fbc5 --grace 7d
    """
    grace_s = _parse_grace_s(grace)
    service, actor = open_service()
    key = service.find_key(actor, key_id)
    secret, key = service.rotate_key(
        actor, key.id, project_id=key.project_id, grace_ms=grace_s * 1000
    )
    if as_json:
        ends = public({"previous_expires_ms": key.previous_expires_ms})
        print_json({"id": key.id, "key": secret, **ends})
        return
    until = format_time(key.previous_expires_ms)
    ends = f"The old secret works until {until}." if until else "The old secret no longer works."
    say(f"id   {key.id}\nkey  {secret}  (shown this once)\n{ends}")


def _parse_grace_s(grace: str) -> int:
    match = _DURATION.fullmatch(f"{grace}s" if grace == "0" else grace)
    seconds = int(match[1]) * _UNIT_S[match[2]] if match else -1
    if not 0 <= seconds <= MAX_GRACE_S:
        reject(
            f"--grace {grace!r} is not possible. Give a number with a unit, such as 30m, 24h or "
            f"7d, up to {MAX_GRACE_S // 86_400}d, or 0."
        )
    return seconds


@commands.command()
def revoke(key_id: KeyId, yes: Yes = False) -> None:
    """Revoke a key for good. Running gateways refuse it within a second.

    The command asks first at a terminal, unless you add --yes.
    """
    service, actor = open_service()
    key = service.find_key(actor, key_id)
    if key.revoked_ms is None:
        effect = _describe_effect(service, actor, key)
        confirm(f"Revoke {key.name} ({key.id}) for good? {effect}", yes=yes)
    service.revoke_key(actor, key.id, project_id=key.project_id)
    say(f"{key_id} is revoked.")


def _with_expiry(changes: Changes) -> Changes:
    if changes.pop("never_expires", False):
        changes["expires_ms"] = None
    elif (days := changes.pop("expires_days", None)) is not None:
        changes["expires_ms"] = now_ms() + round(days * DAY_MS)
    return changes


def _to_json(service: AdminService, key: Key) -> dict[str, Any]:
    return record_json(service, key, status=key.state(now_ms()))


def _to_row(projects: dict[str, str], key: Key) -> dict[str, str | None]:
    project = projects.get(key.project_id, key.project_id) if key.project_id else "admin"
    access = {"models": join_names(key.models), "providers": join_names(key.providers)}
    return _facts(key, project) | access


def _facts(key: Key, project: str) -> dict[str, str | None]:
    return {
        "id": key.id,
        "name": key.name,
        "project": project,
        "key": f"{key.hint}...",
        "status": key.state(now_ms()),
        "created": format_time(key.created_ms),
        "expires": format_time(key.expires_ms),
    }


def _describe_effect(service: AdminService, actor: Actor, key: Key) -> str:
    keys = all_pages(service.list_keys, actor, project_id=key.project_id)
    issued = sum(each.issued_by == key.id and each.state(now_ms()) == "active" for each in keys)
    too = f", and {count_of(issued, 'key')} that it issued" if issued else ""
    return f"It and its tokens would stop working{too}."
