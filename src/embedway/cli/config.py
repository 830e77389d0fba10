"""`embedway config`: what is set, and where."""

import typer

from embedway.cli.terminal import AsJson, print_table
from embedway.config import settings as config
from embedway.config.settings import Settings

commands = typer.Typer(no_args_is_help=True, help="See how this gateway is configured.")


@commands.command()
def show(as_json: AsJson = False) -> None:
    """Show every setting in force and where its value came from.

    Each can be set, strongest first, by a variable, a line in `.env`, or a line in `embedway.toml`:

        EMBEDWAY_PORT=9000    in the environment or in .env

        port = 9000           in embedway.toml
    """
    loaded = config.load_settings()
    rows = [
        {
            "setting": name,
            "value": _aliases(loaded.settings) if name == "aliases" else _shown(value),
            "from": loaded.origins.get(name, "default"),
            "meaning": Settings.meanings()[name],
        }
        for name, value in loaded.settings
    ]
    print_table(rows, empty="", as_json=as_json)


def _aliases(settings: Settings) -> str:
    return ", ".join(
        f"{alias} -> {named if isinstance(named, str) else ', then '.join(named)}"
        for alias, named in settings.aliases.items()
    )


def _shown(value: object) -> object:
    match value:
        case bool() | int() | float() | None:
            return value
        case dict() | list():
            return ", ".join(map(str, value))  # pyright: ignore[reportUnknownArgumentType]  # sections hold keys
        case _:
            return str(value)
