"""Opens SQLite or Postgres, brings the tables up to date, and provides locked transactions."""

import os
import shlex
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import Script, ScriptDirectory
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.exc import TimeoutError as TooBusy

from embedway.core import extras
from embedway.storage import postgres, sqlite
from embedway.storage.sqlite import Durability

MIGRATIONS = Path(__file__).parent / "migrations"

DEVELOPMENT_REVISIONS = frozenset(f"{number:04}" for number in range(1, 9))
"""The revisions that databases had before the first release."""

_SQLITE = "sqlite"
_ALEMBIC = Lock()  # while it upgrades, Alembic keeps the database in globals of its own


class DatabaseError(Exception):
    """The database cannot be opened. The message says why and what to do."""


class DatabaseMissing(DatabaseError):
    """The SQLite file is missing, or Postgres has no tables.

    Args:
        what: A sentence that says what is missing.
    """

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what} If yours is elsewhere, set EMBEDWAY_DATA_DIR or EMBEDWAY_DATABASE_URL; "
            "`embedway config show` says where their values come from. To make a new one here: "
            "embedway db init"
        )
        self.what = what


def connect(
    where: Path | str, *, create: bool = True, durability: Durability = "process"
) -> Engine:
    """Open the database, and make sure that its tables are up to date.

    Args:
        where: The path of the SQLite file, or the URL of Postgres.
        create: Whether to create the file and upgrade the tables if necessary.
        durability: What a commit survives on SQLite. Postgres has its own setting.

    Raises:
        DatabaseMissing: There is no database, and `create` is false.
        DatabaseError: The database cannot be opened, a newer Embedway wrote it, or an older one did
            and `create` is false.
    """
    if create and isinstance(where, Path) and not _is_there(where):
        _make(where)
    engine = open_existing(where, durability=durability)
    try:
        if create:
            upgrade(engine)
        else:
            _check_current(engine)
    except DatabaseError:
        engine.dispose()
        raise
    if isinstance(where, Path):
        sqlite.watch_file(engine, where)
    return engine


def open_existing(where: Path | str, *, durability: Durability = "process") -> Engine:
    """Open an existing database without upgrading it. Postgres is not contacted yet.

    Raises:
        DatabaseMissing: The file is missing.
        DatabaseError: The file is empty, or the URL is invalid.
    """
    if isinstance(where, Path) and not _is_there(where):
        raise DatabaseMissing(f"There is no database at {where}.")
    return open_engine(where, durability=durability)


def open_engine(where: Path | str, *, durability: Durability = "process") -> Engine:
    """Make an engine without checking that the database exists, and without upgrading it."""
    if isinstance(where, Path):
        return sqlite.open_engine(where, durability=durability)
    try:
        url = postgres.parse_url(where)
    except ValueError as error:
        raise DatabaseError(f"The URL of the database is invalid: {error}.") from None
    try:
        with extras.importing("postgres", "Postgres"):
            return postgres.open_engine(url)
    except extras.MissingExtra as error:
        raise DatabaseError(str(error)) from error


def describe(engine: Engine) -> str:
    """Return the path or URL of the database, without a password."""
    if engine.dialect.name == _SQLITE:
        return str(engine.url.database)
    return postgres.describe(engine.url)


@contextmanager
def locked_transaction(engine: Engine, *, lock: str) -> Generator[Connection]:
    """Open a transaction that waits for all others with the same lock, in any process.

    Use it to write what depends on what was read. It commits at the end, or rolls back on an error.

    `lock` names what must not change meanwhile, such as "keys".

    Raises:
        SQLAlchemyError: The database cannot be reached, or waiting for the lock took longer than
            `postgres.WAIT_S`.
    """
    with engine.begin() as connection:
        _take_lock(connection, lock)
        yield connection


def lift_time_limits(connection: Connection) -> None:
    """Let this transaction take any time, because it reads or changes a great deal."""
    if connection.dialect.name != _SQLITE:
        postgres.lift_time_limits(connection)


def read_revisions(engine: Engine) -> tuple[str | None, list[str]]:
    """Return the revision of the tables, or None without tables, and the later ones in order.

    Raises:
        DatabaseError: The database cannot be reached, or a newer or unreleased Embedway wrote it.
    """
    known = known_revisions()
    with _explained(engine), engine.connect() as connection:
        current = MigrationContext.configure(connection).get_current_revision()
    if current is None:
        return None, known
    if current in DEVELOPMENT_REVISIONS:
        raise DatabaseError(
            f"The database {describe(engine)} was made by an Embedway from before the first "
            f"release: its revision is {current}, which cannot be upgraded. Name another database "
            "with EMBEDWAY_DATA_DIR or EMBEDWAY_DATABASE_URL, and make it: embedway db init"
        )
    if current not in known:
        raise DatabaseError(
            f"The database {describe(engine)} was written by a newer Embedway: its revision is "
            f"{current}, the newest that this one knows is {known[-1]}. Install a newer one, or "
            "name another database."
        )
    return current, known[known.index(current) + 1 :]


def known_revisions() -> list[str]:
    """Return all revisions that this Embedway knows, oldest first."""
    return [each.revision for each in _scripts()][::-1]


def upgrade(engine: Engine) -> None:
    """Bring the tables up to date.

    Raises:
        DatabaseError: The database cannot be reached, or a newer Embedway wrote it.
    """
    _, pending = read_revisions(engine)
    if pending:
        _migrate(engine, command.upgrade, "head")


def list_losses(engine: Engine, revision: str) -> list[str]:
    """Return what a downgrade to an earlier revision deletes, one sentence for each migration.

    Raises:
        DatabaseError: The tables are of an earlier revision already or of none, a newer Embedway
            wrote them, or the database cannot be reached.
    """
    current, pending = read_revisions(engine)
    if current is None or revision in pending:
        raise DatabaseError(
            f"The database {describe(engine)} is of revision {current or 'none'}, which is before "
            f"{revision}. There is nothing to undo."
        )
    known = known_revisions()
    undone = known[known.index(revision) + 1 : known.index(current) + 1]
    return [each.module.loses for each in _scripts() if each.revision in undone]


def downgrade(engine: Engine, revision: str) -> None:
    """Undo the migrations after `revision`. What only newer tables hold is deleted.

    Raises:
        DatabaseError: The database cannot be reached.
    """
    _migrate(engine, command.downgrade, revision)


def _migrate(engine: Engine, migrate: Callable[[Config, str], None], revision: str) -> None:
    config = _config()
    with _explained(engine), engine.begin() as connection:
        lift_time_limits(connection)
        # If two processes start at once, the second waits here and then has nothing to do.
        _take_lock(connection, "migrations")
        config.attributes["connection"] = connection
        with _ALEMBIC:
            migrate(config, revision)


def _scripts() -> list[Script]:
    """Return all migrations, newest first."""
    return list(ScriptDirectory.from_config(_config()).walk_revisions())


def _is_there(path: Path) -> bool:
    """Return whether the database file exists.

    Raises:
        DatabaseError: The file is empty. A file that Embedway made never is, so its data is lost.
    """
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return False
    if not size:
        raise DatabaseError(
            f"{path} is empty (0 bytes), so the keys and usage that were in it are lost. Restore "
            "it from a copy, or make a new one: "
            f"rm {shlex.quote(str(path))} && embedway db init"
        )
    return True


def _make(path: Path) -> None:
    """Create the file with all its tables in one step, so that no process finds it incomplete."""
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            fresh = Path(folder) / path.name
            engine = open_engine(fresh)
            try:
                upgrade(engine)
            finally:
                engine.dispose()
            # Unlike a rename, a link never replaces a file that another process has just made.
            with suppress(FileExistsError):
                os.link(fresh, path)
    except OSError as error:
        raise DatabaseError(f"Cannot make the database {path}: {explain(error)}") from error


def _check_current(engine: Engine) -> None:
    """Check that the tables exist and are up to date.

    Raises:
        DatabaseMissing: There are no tables.
        DatabaseError: The tables have another revision, or the database cannot be reached.
    """
    current, pending = read_revisions(engine)
    if current is None:
        raise DatabaseMissing(f"There are no tables of Embedway in {describe(engine)}.")
    if pending:
        raise DatabaseError(
            f"The database {describe(engine)} is of revision {current}, and this Embedway needs "
            f"{pending[-1]}. Take a copy of it, then bring it up to date: embedway db upgrade"
        )


@contextmanager
def _explained(engine: Engine) -> Generator[None]:
    try:
        yield
    except (SQLAlchemyError, OSError) as error:
        raise DatabaseError(
            f"Cannot open the database {describe(engine)}: {explain(error)}"
        ) from error


def explain(error: SQLAlchemyError | OSError) -> str:
    """Return what went wrong with the database, and what to do."""
    if isinstance(error, TooBusy):
        return "All connections to it were in use for too long. Try again, or run more gateways."
    cause = getattr(error, "orig", None) or error
    if type(cause).__module__.startswith("psycopg"):
        return postgres.explain(error, cause)
    return sqlite.explain(error, cause)


def _take_lock(connection: Connection, lock: str) -> None:
    if connection.dialect.name == _SQLITE:
        # SQLite has one writer at a time, whatever the name of the lock.
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        postgres.take_lock(connection, lock)


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config
