"""`embedway keys`: make, list, show, change, rotate and revoke API keys."""

import re
from typing import Annotated, Any

import typer

from embedway.admin.actors import Actor
from embedway.admin.acts import Acts
from embedway.admin.public_fields import public
from embedway.admin.rules import MAX_GRACE_S
from embedway.cli import options
from embedway.cli.acting import (
    PAGE,
    ModelOption,
    ProviderOption,
    Yes,
    acting,
    ask,
    check_name,
    every,
    given,
    joined,
    names,
    print_record,
    spending,
    spending_json,
    time,
)
from embedway.cli.amounts import (
    AlertOption,
    BudgetOption,
    LimitOption,
    budgets,
    limits,
    realerted,
    shown_limit,
)
from embedway.cli.counted import counted
from embedway.cli.terminal import AsJson, escape, out, print_json, print_table, reject
from embedway.core.clock import now_ms
from embedway.core.keys import SCOPES, Key
from embedway.core.pages import Page
from embedway.core.projects import DEFAULT_PROJECT
from embedway.storage import records

DAY_MS = 86_400_000
MIN_DAYS, MAX_DAYS = 0.00001, 36_500
ADMIN_FIELDS = {"name", "expires_ms"}
"""What one may say of an admin key."""
_DURATION = re.compile(r"([0-9]{1,9})([smhd])", re.ASCII)
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

KeyId = Annotated[
    str, typer.Argument(metavar="ID", help="The key's id, as `embedway keys list` shows it.")
]
ScopeOption = Annotated[
    list[str] | None,
    typer.Option("--scope", help=f"What it may do: {', '.join(SCOPES[:-1])}. Repeatable."),
]
DaysOption = Annotated[
    float | None,
    options.days(
        "--expires-days",
        least=MIN_DAYS,
        most=MAX_DAYS,
        example=30,
        help="Days from now until it stops working. A new key without it never does.",
    ),
]

commands = typer.Typer(no_args_is_help=True, help="Make, list, change, rotate and revoke API keys.")


@commands.command()
def create(
    name: Annotated[str, typer.Option(help="What it is for, to find it again.")],
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
    scopes: ScopeOption = None,
    expires_days: DaysOption = None,
    models: ModelOption = None,
    providers: ProviderOption = None,
    limit: LimitOption = None,
    budget: BudgetOption = None,
    alert: AlertOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print only the id and the key.")] = False,
) -> None:
    """Make a key and show it, this once: only its hash is kept.

    embedway keys create --name search-team

    embedway keys create --name trial --expires-days 30 --json

    embedway keys create --name eu --model bge-m3 --model auto --provider mistral

    embedway keys create --name shop --project web --limit requests=600/minute --budget 25/month

    embedway keys create --name platform --admin
    """
    check_name(name)
    changes = given(name=name, budgets=budgets(budget, alerts=alert))
    changes |= _changes(scopes, models, providers, limit)
    if expires_days is not None:
        changes["expires_ms"] = _expiry_ms(expires_days)
    if admin and (fields := [*(["project"] if project else []), *(changes.keys() - ADMIN_FIELDS)]):
        typed = " or ".join(f"--{each.removesuffix('s')}" for each in sorted(fields))
        reject(
            f"--admin makes a key of no project that cannot embed, so it has no {typed}. Leave one "
            "of them out."
        )
    acts, actor = acting()
    of = acts.find_project(actor, project).id if project else DEFAULT_PROJECT
    shown, key = acts.create_key(actor, project_id=None if admin else of, changes=changes)
    if as_json:
        print_json({"id": key.id, "key": shown})
        return
    out.print(f"id   {key.id}\nkey  {escape(shown)}  (shown this once)")


@commands.command("list")
def list_keys(
    project: Annotated[
        str | None, typer.Option(metavar="ID|NAME", help="Only those of this project.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List all keys and their projects, oldest first; admin keys have `admin` for a project."""
    acts, actor = acting()
    of = acts.find_project(actor, project).id if project else None

    def part(after: str | None) -> Page[Key]:
        if of is None:
            return acts.every_key(actor, after=after, limit=PAGE)
        return acts.keys(actor, project_id=of, after=after, limit=PAGE, revoked=True)

    projects = every(
        lambda after: acts.projects(actor, after=after, limit=PAGE, archived=True),
        lambda project: project.id,
    )
    called = {project.id: project.name for project in projects}
    keys = every(part, lambda key: key.id)
    if as_json:
        print_json([_json(acts, key) for key in keys])
        return
    now = now_ms()
    rows = [
        {
            "id": key.id,
            "name": key.name,
            "project": called.get(key.project_id or "", key.project_id or "admin"),
            "key": f"{key.hint}...",
            "status": key.state(now),
            "created": time(key.created_ms),
            "expires": time(key.expires_ms),
            "models": joined(key.models),
            "providers": joined(key.providers),
        }
        for key in keys
    ]
    print_table(rows, empty="No keys yet: embedway keys create --name NAME", as_json=False)


@commands.command()
def show(key_id: KeyId, as_json: AsJson = False) -> None:
    """Show a key: whose it is, what it may do, and what is spent and left of its budgets."""
    acts, actor = acting()
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
            "scopes": joined(key.scopes),
            "models": joined(key.models),
            "providers": joined(key.providers),
            "limits": joined([shown_limit(each) for each in key.limits]) or "none",
            "budgets": spending(acts, key),
        }
    )


@commands.command()
def update(
    key_id: KeyId,
    name: Annotated[str | None, typer.Option(help="What it is for.")] = None,
    scopes: ScopeOption = None,
    expires_days: DaysOption = None,
    never_expires: Annotated[
        bool, typer.Option("--never-expires", help="Let it work without an end.")
    ] = False,
    models: ModelOption = None,
    providers: ProviderOption = None,
    limit: LimitOption = None,
    budget: BudgetOption = None,
    alert: AlertOption = None,
) -> None:
    """Change what the options say, and nothing else; running gateways follow within a second.

    Limits, budgets, models, providers or scopes that you give replace all that the key had. A
    budget keeps its alerts unless --alert gives others.

    embedway keys update key_dd348f3b1ed2fbc5 --limit requests=100/second --limit tokens=1000000/day

    embedway keys update key_dd348f3b1ed2fbc5 --limit none --budget none --model any
    """
    check_name(name)
    if never_expires and expires_days is not None:
        reject(f"--never-expires excludes --expires-days '{expires_days:g}'. Leave one out.")
    changes = given(name=name, budgets=budgets(budget, alerts=alert, of_new=False))
    changes |= _changes(scopes, models, providers, limit)
    if never_expires:
        changes["expires_ms"] = None
    elif expires_days is not None:
        changes["expires_ms"] = _expiry_ms(expires_days)
    if not changes and not alert:
        reject("Nothing to change. Give an option, as this shows: embedway keys update --help")
    acts, actor = acting()
    key = acts.find_key(actor, key_id)
    if alert and not budget:
        changes["budgets"] = realerted(key.budgets, alert)
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
    acts, actor = acting()
    key = acts.find_key(actor, key_id)
    shown, key = acts.rotate_key(actor, key.id, project_id=key.project_id, grace_ms=grace_s * 1000)
    if as_json:
        ends = public({"previous_expires_ms": key.previous_expires_ms})
        print_json({"id": key.id, "key": shown, **ends})
        return
    until = time(key.previous_expires_ms)
    ends = f"The old secret works until {until}." if until else "The old secret no longer works."
    out.print(f"id   {key.id}\nkey  {escape(shown)}  (shown this once)\n{ends}")


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
    acts, actor = acting()
    key = acts.find_key(actor, key_id)
    if key.revoked_ms is None:
        ask(f"Revoke {key.name} ({key.id}) for good? {_stops(acts, actor, key)}", yes=yes)
    acts.revoke_key(actor, key.id, project_id=key.project_id)
    out.print(f"{key_id} is revoked.")


def _expiry_ms(days: float) -> int:
    return now_ms() + round(days * DAY_MS)


def _json(acts: Acts, key: Key) -> dict[str, Any]:
    status = key.state(now_ms())
    return {**public(records.row(key)), "status": status, "spending": spending_json(acts, key)}


def _stops(acts: Acts, actor: Actor, key: Key) -> str:
    """What revoking a key would stop."""
    project = every(
        lambda after: acts.keys(actor, project_id=key.project_id, after=after, limit=PAGE),
        lambda each: each.id,
    )
    issued = sum(each.issued_by == key.id and each.state(now_ms()) == "active" for each in project)
    too = f", and {counted(issued, 'key')} that it issued" if issued else ""
    return f"It and its tokens would stop working{too}."


def _changes(
    scopes: list[str] | None,
    models: list[str] | None,
    providers: list[str] | None,
    limit: list[str] | None,
) -> dict[str, Any]:
    for each in scopes or ():
        if each not in SCOPES[:-1]:
            reject(f"--scope {each!r} is not possible. Choose from: {', '.join(SCOPES[:-1])}.")
    changes = given(
        scopes=tuple(dict.fromkeys(scopes)) if scopes else None,
        limits=limits(limit),
    )
    return {**names(models, providers), **changes}
