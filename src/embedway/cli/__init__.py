"""The command line: one file per command, put together here."""

import sys
from typing import Annotated

import typer
from sqlalchemy.exc import SQLAlchemyError

import embedway
from embedway.cli import (
    audit,
    catalog,
    config,
    db,
    doctor,
    embed,
    keys,
    ledger,
    models,
    projects,
    providers,
    route,
    serve,
    spaces,
    usage,
    users,
)
from embedway.cli.terminal import say_error
from embedway.config.settings import ConfigError
from embedway.core.errors import EmbedwayError
from embedway.local.weights import WeightsError
from embedway.providers.registry import PluginError
from embedway.storage import database
from embedway.storage.database import DatabaseError

HELP = f"""
{embedway.__doc__}

Begin with `embedway serve`: it prints a key and a `curl` to paste. No account is needed. If
something is wrong, `embedway doctor` says what, and how to cure it.
"""

commands = typer.Typer(
    name="embedway",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(embedway.__version__)
        raise typer.Exit


@commands.callback(help=HELP)
def main(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """See `HELP`."""


commands.command()(serve.serve)
commands.command()(embed.embed)
commands.command()(route.route)
commands.add_typer(projects.commands, name="projects")
commands.add_typer(keys.commands, name="keys")
commands.add_typer(users.commands, name="users")
commands.command()(audit.audit)
commands.command()(usage.usage)
commands.add_typer(models.commands, name="models")
commands.add_typer(catalog.commands, name="catalog")
commands.add_typer(providers.commands, name="providers")
commands.add_typer(spaces.commands, name="spaces")
commands.add_typer(db.commands, name="db")
commands.add_typer(ledger.commands, name="ledger")
commands.add_typer(config.commands, name="config")
commands.command()(doctor.doctor)


def app() -> None:
    """Runs a command. What a person can cure is told in a line.

    The exit status is 1 if what the command line says could not be done. Each command checks its
    options before it opens anything, and ends with 2 if they are wrong; see `terminal.reject`.
    """
    try:
        commands()
    except (
        ConfigError,
        DatabaseError,
        WeightsError,
        PluginError,
        EmbedwayError,
        OSError,
    ) as error:
        say_error(error)
    except SQLAlchemyError as error:
        say_error(f"The database failed: {database.explain(error)}")
    sys.exit(1)
