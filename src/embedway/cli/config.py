"""`embedway config`: shows the settings and where each comes from."""

import typer

from embedway.cli.terminal import AsJson, print_table
from embedway.config.settings import Settings, load_settings

commands = typer.Typer(no_args_is_help=True, help="See how this gateway is configured.")


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
