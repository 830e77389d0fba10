"""`embedway db`: the database that keys and usage are kept in."""

import sys
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from sqlalchemy import Engine

from embedway.cli.administration import Yes
from embedway.cli.plural import count_of
from embedway.cli.terminal import (
    AsJson,
    escape,
    fail,
    load_settings,
    out,
    print_json,
    progress,
    reject,
)
from embedway.config.settings import Settings
from embedway.config.stores import database_of, open_configured_store, reveal
from embedway.core.clock import now_ms
from embedway.storage import copying, database, inventory, pepper
from embedway.storage.copying import CopyError
from embedway.storage.database import DatabaseMissing
from embedway.storage.store import PEPPER, open_store

STDIN = "-"

commands = typer.Typer(
    no_args_is_help=True,
    help="See, update and move the database that keys and usage are kept in.",
)


@commands.command()
def init() -> None:
    """Make the database, its tables and its pepper, where there is none yet.

    `embedway serve` does so too when it starts; no other command does. What is there already stays
    as it is.

        embedway db init

        EMBEDWAY_DATABASE_URL=postgresql://user:password@host/embedway embedway db init
    """
    settings = load_settings()
    try:
        store, said = (
            open_configured_store(settings, create=False),
            "is there already. Nothing has changed.",
        )
    except DatabaseMissing:
        store, said = (
            open_configured_store(settings, create=True),
            "is made. Next: embedway keys create --name NAME",
        )
    store.database.dispose()
    out.print(f"{escape(database.describe(store.database))} {said}")


@commands.command()
def status(as_json: AsJson = False) -> None:
    """Show which database it is, of what revision, and how much is in it. Changes nothing.

    Without EMBEDWAY_DATABASE_URL it is the file embedway.db in the data folder. A password is never
    shown. Rows of large tables are about so many.
    """
    engine = database.open_existing(database_of(load_settings()))
    try:
        current, pending = database.read_revisions(engine)
        found = inventory.take_inventory(engine)
    finally:
        engine.dispose()
    facts = {
        "database": database.describe(engine),
        "revision": current,
        "newest_revision": pending[-1] if pending else current,
        "pending": pending,
        "size_bytes": found.size_bytes,
        "rows": found.rows,
    }
    if as_json:
        print_json(facts)
        return
    cure = f"(embedway db {'upgrade' if current else 'init'}; a gateway does it when it starts)"
    out.print(f"database  {escape(database.describe(engine))}")
    out.print(f"revision  {current or 'none'} of {facts['newest_revision']}")
    out.print(f"pending   {', '.join(pending)} {cure}" if pending else "pending   none")
    out.print(f"size      {found.size_bytes / 2**20:,.1f} MiB")
    for name, rows in found.rows.items():
        out.print(f"{name:18} {rows:12,} {'row' if rows == 1 else 'rows'}")


@commands.command()
def upgrade() -> None:
    """Bring the tables up to date, as a gateway does by itself when it starts.

    Worth doing beforehand where much usage is kept: a migration may then take minutes. Take a copy
    first. There is no way back but that copy.
    """
    engine = database.open_existing(database_of(load_settings()))
    try:
        before, pending = database.read_revisions(engine)
        if before is None:
            raise DatabaseMissing(
                f"There are no tables of Embedway in {database.describe(engine)}."
            )
        database.upgrade(engine)
        after, _ = database.read_revisions(engine)
    finally:
        engine.dispose()
    said = f"upgraded from {before} to {after}" if pending else f"up to date ({after})"
    out.print(f"{escape(database.describe(engine))} is {said}.")


@commands.command()
def copy(
    to: Annotated[
        str | None,
        typer.Option(
            help="The URL of the empty Postgres; - to read it from standard input. If left out, "
            "EMBEDWAY_DATABASE_URL. Both keep a password out of the list of processes."
        ),
    ] = None,
) -> None:
    """Copy everything from the data folder's SQLite file into an empty Postgres.

    Keys, projects, end users, usage and what is proven of spaces; all of it or, if anything goes
    wrong, nothing. The file is only read. To move a gateway:

        createdb embedway

        embedway db copy --to postgresql://user:password@host/embedway

        export EMBEDWAY_DATABASE_URL=postgresql://user:password@host/embedway

        embedway serve

    Stop the gateway first: what it writes after the copy began stays behind, and is told of.
    Gateways that run elsewhere need the pepper too, without which no key works: copy the file
    `pepper` into their data folder, or set EMBEDWAY_PEPPER to its 64 hex digits.
    """
    settings = load_settings()
    url = _target(to, settings)
    # With its pepper: if that is not here, this is not the folder to move.
    source = open_store(settings.data_dir, pepper=reveal(settings.pepper), create=False).database
    target = database.connect(url)
    try:
        copied = _copy(source, target)
    except CopyError as error:
        fail(error)
    finally:
        source.dispose()
        target.dispose()
    out.print(
        f"Copied {count_of(sum(copied.rows.values()), 'row')}, of which usage "
        f"{copied.rows['usage']:,}, into "
        f"{escape(database.describe(target))}. Counts and sums are those of the original."
    )
    pepper_at = "EMBEDWAY_PEPPER" if settings.pepper else escape(str(settings.data_dir / "pepper"))
    out.print(
        f"Next: set EMBEDWAY_DATABASE_URL, and bring the pepper ({pepper_at}) along to wherever "
        "gateways run."
    )
    if copied.missed_records:
        fail(
            f"A gateway wrote {count_of(copied.missed_records, 'usage record')} meanwhile, not in "
            "the copy. Stop it, and copy again into a database that is empty."
        )


@commands.command()
def repepper(yes: Yes = False) -> None:
    """Begin with a new pepper, where the old one is lost or known to others: no key works any more.

    Usage, projects and settings stay. The pepper is what keys are hashed with; without it none can
    be recognised. If there is a copy of it anywhere, use that instead.
    """
    settings = load_settings()
    engine = database.connect(database_of(settings), create=False)
    try:
        if not yes:
            typer.confirm("Every key stops working, for ever. Go on?", abort=True)
        pepper.discard_pepper(
            engine, settings.data_dir / PEPPER, configured=reveal(settings.pepper), now_ms=now_ms()
        )
    finally:
        engine.dispose()
    open_configured_store(settings, create=True).database.dispose()
    out.print("Forgotten. Make new keys with `embedway keys create`.")


def _target(to: str | None, settings: Settings) -> str:
    url = sys.stdin.readline().strip() if to == STDIN else to or reveal(settings.database_url)
    if not url:
        reject("Copy to where? embedway db copy --to postgresql://user:password@host/database")
    return url


def _copy(source: Engine, target: Engine) -> copying.CopyReport:
    text = TextColumn("{task.description}")
    with progress(text, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()) as bar:
        tasks = {table.name: bar.add_task(table.name, total=None) for table in copying.TABLES}
        return copying.copy_database(
            source,
            target,
            progress=lambda name, done, total: bar.update(tasks[name], completed=done, total=total),
        )
