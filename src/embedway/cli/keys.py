"""`embedway keys`: make, list, show, change, rotate and revoke API keys."""

import re
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
from embedway.cli.fields import KEY, KEY_UPDATE, Changes, with_alerts, with_fields
from embedway.cli.limits_and_budgets import format_amounts
from embedway.cli.plural import count_of
from embedway.cli.terminal import AsJson, escape, out, print_json, print_record, print_table, reject
from embedway.core.clock import now_ms
from embedway.core.keys import Key
from embedway.core.project import DEFAULT_PROJECT
from embedway.ledger.rollups import DAY_MS
from embedway.organization.actors import Actor
from embedway.organization.public_fields import public
from embedway.organization.rules import MAX_GRACE_S
from embedway.organization.service import AdminService

ADMIN_FIELDS = {"name", "expires_days"}
"""The fields that an admin key may have."""
_DURATION = re.compile(r"([0-9]{1,9})([smhd])", re.ASCII)
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

KeyId = Annotated[
    str, typer.Argument(metavar="ID", help="The key's id, as `embedway keys list` shows it.")
]
commands = typer.Typer(no_args_is_help=True, help="Make, list, change, rotate and revoke API keys.")


@commands.command()
@with_fields(KEY)
def create(
    changes: Changes,
    project: Annotated[
        str | None,
        typer.Option(metavar="ID|NAME", help="Whose it is; the default project if left out."),
    ] = None,
    admin: Annotated[
        bool,
        typer.Option(
            "--admin", help="Make an admin key: it may administer everything, but cannot embed."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print only the id and the key.")] = False,
) -> None:
    """Make a key and show it, this once: only its hash is kept.

    embedway keys create --name search-team

    embedway keys create --name trial --expires-days 30 --json

    embedway keys create --name eu --model bge-m3 --model auto --provider mistral

    embedway keys create --name shop --project web --limit requests=600/minute --budget 25/month

    embedway keys create --name platform --admin
    """
    if admin and (
        fields := [*(["project"] if project else []), *sorted(changes.keys() - ADMIN_FIELDS)]
    ):
        typed = " or ".join(KEY[each].option if each in KEY else "--project" for each in fields)
        reject(
            f"--admin makes a key of no project that cannot embed, so it has no {typed}. Leave one "
            "of them out."
        )
    acts, actor = open_service()
    of = acts.find_project(actor, project).id if project else DEFAULT_PROJECT
    secret, key = acts.create_key(
        actor, project_id=None if admin else of, changes=_with_expiry(changes)
    )
    if as_json:
        print_json({"id": key.id, "key": secret})
        return
    out.print(f"id   {key.id}\nkey  {escape(secret)}  (shown this once)")


@commands.command("list")
def list_keys(
    project: Annotated[
        str | None, typer.Option(metavar="ID|NAME", help="Only those of this project.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List all keys and their projects, oldest first; admin keys have `admin` for a project."""
    acts, actor = open_service()
    of = acts.find_project(actor, project).id if project else None

    keys = (
        all_pages(acts.all_keys, actor)
        if of is None
        else all_pages(acts.keys, actor, project_id=of, revoked=True)
    )
    names = {each.id: each.name for each in all_pages(acts.projects, actor, archived=True)}
    to_row = partial(_json, acts) if as_json else partial(_row, names)
    print_table(
        [to_row(key) for key in keys],
        empty="No keys yet: embedway keys create --name NAME",
        as_json=as_json,
    )


@commands.command()
def show(key_id: KeyId, as_json: AsJson = False) -> None:
    """Show a key: whose it is, what it may do, and what is spent and left of its budgets."""
    acts, actor = open_service()
    key = acts.find_key(actor, key_id)
    if as_json:
        print_json(_json(acts, key))
        return
    print_record(
        {
            "id": key.id,
            "name": key.name,
            "project": key.project_id or "none: an admin key",
            "key": f"{key.hint}...",
            "status": key.state(now_ms()),
            "created": time(key.created_ms),
            "expires": time(key.expires_ms) or "never",
            "revoked": time(key.revoked_ms),
            "old secret expires": time(key.previous_expires_ms),
            "issued by": key.issued_by,
            "scopes": join_names(key.scopes),
            "models": join_names(key.models),
            "providers": join_names(key.providers),
            "limits": format_amounts(key.limits),
            "budgets": spending(acts, key),
        }
    )


@commands.command()
@with_fields(KEY_UPDATE, update="embedway keys update")
def update(key_id: KeyId, changes: Changes) -> None:
    """Change what the options say, and nothing else; running gateways follow within a second.

    Limits, budgets, models, providers or scopes that you give replace all that the key had. A
    budget keeps its alerts unless --alert gives others.

    embedway keys update key_dd348f3b1ed2fbc5 --limit requests=100/second --limit tokens=1000000/day

    embedway keys update key_dd348f3b1ed2fbc5 --limit none --budget none --model any
    """
    if "never_expires" in changes and "expires_days" in changes:
        days = f"{changes['expires_days']:g}"
        reject(f"--never-expires excludes --expires-days {days!r}. Leave one out.")
    acts, actor = open_service()
    key = acts.find_key(actor, key_id)
    changes = _with_expiry(with_alerts(changes, KEY, key))
    acts.update_key(actor, key.id, project_id=key.project_id, changes=changes)
    out.print(f"{key_id} is changed.")


@commands.command()
def rotate(
    key_id: KeyId,
    grace: Annotated[
        str,
        typer.Option(
            metavar="DURATION",
            help="How long the old secret works on, such as 30m, 24h or 7d; 0 ends it at once.",
        ),
    ] = "24h",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the id, the key and the end of the old one.")
    ] = False,
) -> None:
    """Give a key a new secret and show it, this once; the old one works until the grace is over.

    The key stays the same in all else: its id, rights, limits and budgets, and what is used of
    them. Rotating again within the grace ends the older of its two secrets at once.

    embedway keys rotate key_dd348f3b1ed2fbc5 --grace 7d
    """
    grace_s = _seconds(grace)
    acts, actor = open_service()
    key = acts.find_key(actor, key_id)
    secret, key = acts.rotate_key(actor, key.id, project_id=key.project_id, grace_ms=grace_s * 1000)
    if as_json:
        ends = public({"previous_expires_ms": key.previous_expires_ms})
        print_json({"id": key.id, "key": secret, **ends})
        return
    until = time(key.previous_expires_ms)
    ends = f"The old secret works until {until}." if until else "The old secret no longer works."
    out.print(f"id   {key.id}\nkey  {escape(secret)}  (shown this once)\n{ends}")


def _seconds(grace: str) -> int:
    typed = _DURATION.fullmatch(f"{grace}s" if grace == "0" else grace)
    seconds = int(typed[1]) * _UNIT_S[typed[2]] if typed else -1
    if not 0 <= seconds <= MAX_GRACE_S:
        reject(
            f"--grace {grace!r} is not possible. Give a number with a unit, such as 30m, 24h or "
            f"7d, up to {MAX_GRACE_S // 86_400}d, or 0."
        )
    return seconds


@commands.command()
def revoke(key_id: KeyId, yes: Yes = False) -> None:
    """Revoke a key for good; a running server refuses it within a second.

    At a terminal it asks first.
    """
    acts, actor = open_service()
    key = acts.find_key(actor, key_id)
    if key.revoked_ms is None:
        confirm(f"Revoke {key.name} ({key.id}) for good? {_stops(acts, actor, key)}", yes=yes)
    acts.revoke_key(actor, key.id, project_id=key.project_id)
    out.print(f"{key_id} is revoked.")


def _with_expiry(changes: Changes) -> Changes:
    if changes.pop("never_expires", False):
        changes["expires_ms"] = None
    elif (days := changes.pop("expires_days", None)) is not None:
        changes["expires_ms"] = now_ms() + round(days * DAY_MS)
    return changes


def _json(acts: AdminService, key: Key) -> dict[str, Any]:
    return record_json(acts, key, status=key.state(now_ms()))


def _row(projects: dict[str, str], key: Key) -> dict[str, str | None]:
    of = key.project_id
    return {
        "id": key.id,
        "name": key.name,
        "project": projects.get(of, of) if of else "admin",
        "key": f"{key.hint}...",
        "status": key.state(now_ms()),
        "created": time(key.created_ms),
        "expires": time(key.expires_ms),
        "models": join_names(key.models),
        "providers": join_names(key.providers),
    }


def _stops(acts: AdminService, actor: Actor, key: Key) -> str:
    """What revoking a key would stop."""
    project = all_pages(acts.keys, actor, project_id=key.project_id)
    issued = sum(each.issued_by == key.id and each.state(now_ms()) == "active" for each in project)
    too = f", and {count_of(issued, 'key')} that it issued" if issued else ""
    return f"It and its tokens would stop working{too}."
