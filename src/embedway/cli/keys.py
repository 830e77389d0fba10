"""`embedway keys`: make, list and revoke API keys."""

from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.markup import escape

from embedway.auth import secret
from embedway.cli.terminal import AsJson, fail, load_store, out, print_json, print_table
from embedway.core.clock import now_ms

DAY_MS = 86_400_000
MAX_DAYS = 36_500
MAX_NAME_CHARACTERS = 256

commands = typer.Typer(no_args_is_help=True, help="Make, list and revoke API keys.")


@commands.command()
def create(
    name: Annotated[str, typer.Option(help="What it is for, to find it again.")],
    expires_days: Annotated[
        float | None,
        typer.Option(
            min=0, max=MAX_DAYS, help="Stop working after so many days; never if left out."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print only the id and the key.")] = False,
) -> None:
    """Make a key and show it, this once: only its hash is kept.

    embedway keys create --name search-team

    embedway keys create --name trial --expires-days 30 --json
    """
    if not name.isprintable() or not 0 < len(name.strip()) <= MAX_NAME_CHARACTERS:
        fail(f"--name {name!r} is not possible: use 1 to {MAX_NAME_CHARACTERS} visible characters.")
    store, now = load_store(), now_ms()
    expires_ms = None if expires_days is None else now + round(expires_days * DAY_MS)
    shown, key = secret.issue(name, pepper=store.pepper, now_ms=now, expires_ms=expires_ms)
    store.keys.create(key)
    if as_json:
        print_json({"id": key.id, "key": shown})
        return
    out.print(f"id   {key.id}\nkey  {escape(shown)}  (shown this once)")


@commands.command("list")
def list_keys(as_json: AsJson = False) -> None:
    """List all keys, oldest first."""
    now = now_ms()
    rows = [
        {
            "id": key.id,
            "name": key.name,
            "key": f"{key.hint}...",
            "state": key.state(now),
            "created": _time(key.created_ms),
            "expires": _time(key.expires_ms),
        }
        for key in load_store().keys.all()
    ]
    print_table(rows, empty="No keys yet: embedway keys create --name NAME", as_json=as_json)


@commands.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="As `list` shows it.")],
) -> None:
    """Revoke a key for good; a running server refuses it within a second."""
    if not load_store().keys.revoke(key_id, at_ms=now_ms()):
        fail(f"There is no key {key_id!r} that works. 'embedway keys list' shows them all.")
    out.print(f"{key_id} is revoked.")


def _time(at_ms: int | None) -> str | None:
    if at_ms is None:
        return None
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
