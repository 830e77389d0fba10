"""Puts the command line together from one file per command."""

import sys
from typing import Annotated

import typer
from sqlalchemy.exc import SQLAlchemyError

import embedway
from embedway.cli import (
    audit,
    catalog,
    config,
    corpus,
    db,
    doctor,
    embed,
    keys,
    ledger,
    models,
    projects,
    providers,
    route,
    search,
    serve,
    spaces,
    top,
    usage,
    users,
    webhooks,
)
from embedway.cli.terminal import say_error
from embedway.config.settings import ConfigError
from embedway.core.errors import EmbedwayError
from embedway.core.extras import MissingExtra
from embedway.local.weights import WeightsError
from embedway.providers.registry import PluginError
from embedway.storage import database
from embedway.storage.database import DatabaseError

HELP = f"""
{embedway.__doc__}

Begin with `embedway serve`: it prints a key and a `curl` command to paste. You need no account. If
something is wrong, `embedway doctor` says what, and how to fix it.
"""

commands = typer.Typer(
    name="embedway",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(embedway.__version__)
        raise typer.Exit


@commands.callback(help=HELP)
def main(
    _: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Print `HELP` or the version."""


commands.command()(serve.serve)
commands.command()(embed.embed)
commands.add_typer(corpus.commands, name="corpus")
commands.command()(search.search)
commands.command()(route.route)
commands.add_typer(projects.commands, name="projects")
commands.add_typer(keys.commands, name="keys")
commands.add_typer(users.commands, name="users")
commands.command()(audit.audit)
commands.command()(usage.usage)
commands.command()(top.top)
commands.add_typer(models.commands, name="models")
commands.add_typer(catalog.commands, name="catalog")
commands.add_typer(providers.commands, name="providers")
commands.add_typer(spaces.commands, name="spaces")
commands.add_typer(webhooks.commands, name="webhooks")
commands.add_typer(db.commands, name="db")
commands.add_typer(ledger.commands, name="ledger")
commands.add_typer(config.commands, name="config")
commands.command()(doctor.doctor)


def app() -> None:
    """Run the command that was typed, and print errors that an operator can fix in one line.

    Such an error exits with status 1. Each command checks its options before it opens anything, and
    exits with status 2 if they are wrong: see `terminal.reject`.
    """
    try:
        commands()
    except (
        ConfigError,
        DatabaseError,
        WeightsError,
        PluginError,
        MissingExtra,
        EmbedwayError,
        OSError,
    ) as error:
        say_error(error)
    except SQLAlchemyError as error:
        say_error(f"The database failed: {database.explain(error)}")
    sys.exit(1)
