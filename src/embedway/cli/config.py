"""`embedway config`: shows, compares and reloads the configuration."""

from collections.abc import Sequence
from typing import Annotated

import msgspec
import typer

from embedway.cli.gateway_client import KEY_VARIABLE, find_gateway
from embedway.cli.setup import Setup
from embedway.cli.terminal import AsJson, count_of, fail, print_table, say
from embedway.config.settings import Settings, load_settings, settings_file
from embedway.config.template import write_template
from embedway.core.configuration_change import ConfigurationChange

commands = typer.Typer(no_args_is_help=True, help="See and change how this gateway is configured.")

Url = Annotated[
    str | None,
    typer.Option(
        help=f"Address of the gateway, with an admin key in {KEY_VARIABLE}. Each replica has its "
        "own; do not name a load balancer.",
        metavar="URL",
    ),
]


class _Report(msgspec.Struct):
    """The answer of a gateway to a reload."""

    changes: list[ConfigurationChange]


@commands.command()
def show(as_json: AsJson = False) -> None:
    """Show every setting in force and where its value came from.

    Set one by a variable, a line in `.env`, or a line in `embedway.toml`; the first of these wins:

        EMBEDWAY_PORT=9000    in the environment or in .env

        port = 9000           in embedway.toml
    """
    loaded = load_settings()
    rows = [
        {
            "setting": name,
            "value": _format_aliases(loaded.settings) if name == "aliases" else _format(value),
            "from": loaded.origins.get(name, "default"),
            "meaning": Settings.meanings()[name],
        }
        for name, value in loaded.settings
    ]
    print_table(rows, as_json=as_json)


def _format_aliases(settings: Settings) -> str:
    return ", ".join(
        f"{alias} -> {target if isinstance(target, str) else ', then '.join(target)}"
        for alias, target in settings.aliases.items()
    )


def _format(value: object) -> object:
    if isinstance(value, dict | list):
        return ", ".join(map(str, value))  # pyright: ignore[reportUnknownArgumentType]  # names only: sections contain keys
    return value if isinstance(value, int | float | None) else str(value)


@commands.command()
def init(
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
) -> None:
    """Write an `embedway.toml` that explains every setting. All of it is commented out.

    The file is the one that the gateway reads in this folder, or that EMBEDWAY_CONFIG names.
    """
    path = settings_file()
    if path.exists() and not force:
        fail(f"There is a file {path}. To overwrite it: embedway config init --force")
    # It may get keys, so nobody else may read it.
    written = path.with_name(f"{path.name}.new")
    written.touch(mode=0o600)
    written.write_text(write_template(), encoding="utf-8")
    written.replace(path)
    say(f"All settings are in {path}, commented out.")


@commands.command()
def diff(url: Url = None, as_json: AsJson = False) -> None:
    """Show what a reload would change in the running gateway. Nothing changes.

    The gateway reads its own files: its `embedway.toml`, `.env`, files of keys and catalog. A key
    is only ever shown as changed. The exit status is 0 if nothing differs, and 1 if something does.
    """
    changes = _ask_gateway(url, "?dry_run=true")
    _print_changes(changes, as_json=as_json)
    if changes:
        raise typer.Exit(1)


@commands.command()
def reload(url: Url = None, as_json: AsJson = False) -> None:
    """Have the running gateway read its configuration again, without dropping a request.

    If anything is wrong, nothing changes, and all reasons are shown. What only a restart can change
    is named, and the rest is applied. Of several replicas, ask each by its own address:

        embedway config reload --url http://10.0.0.5:8080
    """
    changes = _ask_gateway(url, "")
    _print_changes(changes, as_json=as_json)
    if not as_json and changes:
        waiting = sum(each.needs_restart for each in changes)
        say(f"\nReloaded: {count_of(len(changes) - waiting, 'change')} in force.")
        if waiting:
            say(f"Restart the gateway for {count_of(waiting, 'more change')}.")


def _ask_gateway(url: str | None, query: str) -> Sequence[ConfigurationChange]:
    path = f"/v1/organization/configuration/reload{query}"
    return find_gateway(url, Setup()).fetch(path, b"", _Report).changes


def _print_changes(changes: Sequence[ConfigurationChange], *, as_json: bool) -> None:
    rows = [
        {
            "what": each.kind,
            "name": each.name,
            "field": each.field,
            "in force": each.before,
            "read": each.after,
            "applied by": "restart" if each.needs_restart else "reload",
        }
        for each in changes
    ]
    print_table(changes if as_json else rows, empty="Nothing differs.", as_json=as_json)
