"""`embedway keys`: make, list and revoke API keys."""

from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.markup import escape

from embedway.auth import secret
from embedway.catalog.catalog import LOCAL
from embedway.cli.terminal import (
    AsJson,
    fail,
    load_catalog,
    load_store,
    out,
    print_json,
    print_table,
)
from embedway.config import settings as config
from embedway.core.clock import now_ms
from embedway.core.errors import UnknownModel
from embedway.routing.resolve import find

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
    models: Annotated[
        list[str] | None,
        typer.Option("--model", help="A name of a model it may use; any if left out. Repeatable."),
    ] = None,
    providers: Annotated[
        list[str] | None,
        typer.Option("--provider", help="Who may serve it; any if left out. Repeatable."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print only the id and the key.")] = False,
) -> None:
    """Make a key and show it, this once: only its hash is kept.

    embedway keys create --name search-team

    embedway keys create --name trial --expires-days 30 --json

    embedway keys create --name eu --model bge-m3 --model auto --provider mistral
    """
    if not name.isprintable() or not 0 < len(name.strip()) <= MAX_NAME_CHARACTERS:
        fail(f"--name {name!r} is not possible: use 1 to {MAX_NAME_CHARACTERS} visible characters.")
    _check_restrictions(models, providers)
    store, now = load_store(), now_ms()
    expires_ms = None if expires_days is None else now + round(expires_days * DAY_MS)
    shown, key = secret.issue(
        name,
        pepper=store.pepper,
        now_ms=now,
        expires_ms=expires_ms,
        models=_once(models),
        providers=_once(providers),
    )
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
            "models": key.models if as_json else _names(key.models),
            "providers": key.providers if as_json else _names(key.providers),
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


def _check_restrictions(models: list[str] | None, providers: list[str] | None) -> None:
    """Fails for what no request could name; a mistyped name would be a key that works nowhere."""
    if not models and not providers:
        return
    catalog = load_catalog(config.load())
    enabled = [LOCAL, *catalog.offers]
    for name in providers or ():
        if name not in enabled:
            fail(f"--provider {name!r} is not enabled here; there are {', '.join(enabled)}.")
    for name in models or ():
        try:
            find(name, catalog, param="model")
        except UnknownModel as error:
            fail(f"--model {name!r} is not possible. {error.message}")


def _names(allowed: tuple[str, ...] | None) -> str:
    return "any" if allowed is None else ", ".join(allowed)


def _once(names: list[str] | None) -> tuple[str, ...] | None:
    return tuple(dict.fromkeys(names)) if names else None


def _time(at_ms: int | None) -> str | None:
    if at_ms is None:
        return None
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
