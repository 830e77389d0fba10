"""`embedway db`: creates, inspects, upgrades and copies the database of keys and usage."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from embedway.cli.administration import Yes, confirm
from embedway.cli.terminal import AsJson, count_of, fail, note, print_json, progress, reject, say
from embedway.config.settings import load_settings
from embedway.config.stores import database_of, open_configured_store, reveal
from embedway.core.clock import now_ms
from embedway.storage import copying, database, inventory, pepper, sqlite
from embedway.storage.copying import CopyError
from embedway.storage.database import DatabaseMissing
from embedway.storage.store import PEPPER, open_store

STDIN = "-"

commands = typer.Typer(
    no_args_is_help=True,
    help="See, upgrade and move the database of keys and usage.",
)


@commands.command()
def init() -> None:
    """Make the database, its tables and its pepper, unless they exist.

    `embedway serve` does the same when it starts; no other command does. Whatever exists stays
    unchanged.

        embedway db init

        EMBEDWAY_DATABASE_URL=postgresql://user:password@host/embedway embedway db init
    """
    settings = load_settings().settings
    try:
        store = open_configured_store(settings, create=False)
        result = "is there already. Nothing has changed."
    except DatabaseMissing:
        store = open_configured_store(settings, create=True)
        result = "is made. Next: embedway keys create --name NAME"
    store.database.dispose()
    say(f"{database.describe(store.database)} {result}")


@commands.command()
def status(as_json: AsJson = False) -> None:
    """Show which database is in use, its revision, and how much is in it. Change nothing.

    Without EMBEDWAY_DATABASE_URL, the database is the file embedway.db in the data folder. The
    output never contains a password. The row counts of large tables are estimates.
    """
    engine = database.open_existing(database_of(load_settings().settings))
    try:
        current, pending = database.read_revisions(engine)
        contents = inventory.take_inventory(engine)
    finally:
        engine.dispose()
    facts = {
        "database": database.describe(engine),
        "revision": current,
        "newest_revision": pending[-1] if pending else current,
        "pending": pending,
        "size_bytes": contents.size_bytes,
        "rows": contents.rows,
    }
    if as_json:
        print_json(facts)
        return
    cure = f"(embedway db {'upgrade' if current else 'init'}; a gateway does it when it starts)"
    say(f"database  {database.describe(engine)}")
    say(f"revision  {current or 'none'} of {facts['newest_revision']}")
    say(f"pending   {', '.join(pending)} {cure}" if pending else "pending   none")
    say(f"size      {contents.size_bytes / 2**20:,.1f} MiB")
    for name, rows in contents.rows.items():
        say(f"{name:18} {rows:12,} {'row' if rows == 1 else 'rows'}")


@commands.command()
def upgrade() -> None:
    """Bring the tables up to date, as a gateway does when it starts.

    Run this beforehand if the database is large, because a migration can take minutes. Make a copy
    first: `embedway db downgrade` undoes it, but deletes what only the new tables hold.
    """
    engine = database.open_existing(database_of(load_settings().settings))
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
    result = f"upgraded from {before} to {after}" if pending else f"up to date ({after})"
    say(f"{database.describe(engine)} is {result}.")


@commands.command()
def downgrade(
    revision: Annotated[
        str, typer.Argument(help="The revision that the older Embedway's `db status` shows.")
    ],
    yes: Yes = False,
) -> None:
    """Undo migrations, so that an older Embedway can use the database again.

    Run it with the newer Embedway, which knows how to undo them. Stop all gateways and make a copy
    first. The command says what is lost, and asks before it changes anything.

        embedway db downgrade 0001_initial
    """
    known = database.known_revisions()
    if revision not in known:
        reject(f"There is no revision {revision!r}. There are: {', '.join(known)}")
    engine = database.open_existing(database_of(load_settings().settings))
    try:
        losses = database.list_losses(engine, revision)
        if losses:
            note(f"This deletes from {database.describe(engine)}:")
            for each in losses:
                note(f"- {each}")
            again = f"embedway db downgrade {revision} --yes"
            confirm("Are all gateways stopped, and do you have a copy?", yes=yes, again=again)
            database.downgrade(engine, revision)
    finally:
        engine.dispose()
    say(f"{database.describe(engine)} is of revision {revision}.")
    if losses:
        say("Start the older Embedway now: a newer one would upgrade it again.")


@commands.command()
def backup(
    file: Annotated[Path, typer.Argument(help="The file to make. It must not exist.")],
) -> None:
    """Copy the SQLite database into a file, while gateways run.

    The copy is of one moment: it has every answer that was sent before. Keep it apart from the
    pepper, which you copy once. To restore, stop the gateway, delete embedway.db-wal and
    embedway.db-shm, and put the file in the place of embedway.db.

        embedway db backup copy.db
    """
    where = database_of(load_settings().settings)
    if not isinstance(where, Path):
        fail(
            "The database is a Postgres. Use its own tool: "
            "pg_dump --format=custom --file=embedway.dump postgresql://..."
        )
    if not file.absolute().parent.is_dir():
        fail(f"There is no folder {file.parent}. Make it, or name a file in another one.")
    engine = database.open_existing(where)
    try:
        sqlite.backup(engine, file)
    except FileExistsError:
        fail(f"{file} is there already. Name a file that is not.")
    finally:
        engine.dispose()
    say(f"{where} is copied to {file} ({file.stat().st_size / 2**20:,.1f} MiB).")
    say("Its keys work only with the pepper, which is not in it. Keep a copy of that elsewhere.")


@commands.command()
def copy(
    to: Annotated[
        str | None,
        typer.Option(
            help="The URL of the empty Postgres; - to read it from standard input. "
            "[EMBEDWAY_DATABASE_URL] Both keep a password out of the list of processes."
        ),
    ] = None,
) -> None:
    """Copy everything from the data folder's SQLite file into an empty Postgres.

    It copies keys, projects, end users, usage and the proofs of spaces. If anything goes wrong, it
    copies nothing. The file is only read. To move a gateway:

        createdb embedway

        embedway db copy --to postgresql://user:password@host/embedway

        export EMBEDWAY_DATABASE_URL=postgresql://user:password@host/embedway

        embedway serve

    Stop the gateway first: what it writes after the copy began is not copied, and the command says
    how much that is. Gateways that run elsewhere need the pepper too, because no key works without
    it: copy the file `pepper` into their data folder, or set EMBEDWAY_PEPPER to its 64 hex digits.
    """
    settings = load_settings().settings
    url = sys.stdin.readline().strip() if to == STDIN else to or reveal(settings.database_url)
    if not url:
        reject("Copy to where? embedway db copy --to postgresql://user:password@host/database")
    # Opened with its pepper: a folder without one is not the folder to move.
    source = open_store(settings.data_dir, pepper=reveal(settings.pepper), create=False).database
    target = database.connect(url)
    try:
        with progress() as bar:
            tasks = {table.name: bar.add_task(table.name, total=None) for table in copying.TABLES}

            def show(name: str, done: int, total: int) -> None:
                bar.update(tasks[name], completed=done, total=total)

            report = copying.copy_database(source, target, progress=show)
    except CopyError as error:
        fail(error)
    finally:
        source.dispose()
        target.dispose()
    say(
        f"Copied {count_of(sum(report.rows.values()), 'row')}, of which usage "
        f"{report.rows['usage']:,}, into {database.describe(target)}. Counts and sums are those of "
        "the original."
    )
    pepper_at = "EMBEDWAY_PEPPER" if settings.pepper else settings.data_dir / "pepper"
    say(
        f"Next: set EMBEDWAY_DATABASE_URL, and bring the pepper ({pepper_at}) along to wherever "
        "gateways run."
    )
    if report.missed_records:
        fail(
            f"A gateway wrote {count_of(report.missed_records, 'usage record')} meanwhile, not in "
            "the copy. Stop it, and copy again into a database that is empty."
        )


@commands.command()
def repepper(yes: Yes = False) -> None:
    """Replace a pepper that is lost or known to others. All existing keys stop working for good.

    Usage, projects and settings stay. Keys are hashed with the pepper, so none can be recognised
    without it. If you have a copy of it anywhere, restore that instead.
    """
    settings = load_settings().settings
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
    say("Forgotten. Make new keys with `embedway keys create`.")
