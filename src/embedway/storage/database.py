"""Opens the database and brings its tables up to date.

The one way to open either kind, and the one way to write what depends on what was read. Knows
nothing of what is stored.
"""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.exc import TimeoutError as TooBusy

from embedway.storage import postgres, sqlite
from embedway.storage.sqlite import Durability

MIGRATIONS = Path(__file__).parent / "migrations"

_SQLITE = "sqlite"


class DatabaseError(Exception):
    """The database cannot be opened; the message says why and what to do."""


def connect(where: Path | str, *, durability: Durability = "process") -> Engine:
    """The database, created (if a file) and migrated as needed.

    Args:
        where: The file of SQLite, or the URL of Postgres.
        durability: What a commit survives. Postgres is told on its own side.

    Raises:
        DatabaseError: It cannot be opened, or was written by a newer Embedway.
    """
    engine = open_engine(where, durability=durability)
    try:
        upgrade(engine)
    except DatabaseError:
        engine.dispose()
        raise
    if isinstance(where, Path):
        sqlite.guard(engine, where)
    return engine


def open_engine(where: Path | str, *, durability: Durability = "process") -> Engine:
    """The database as it is: neither reached yet nor migrated. See `connect`."""
    if isinstance(where, Path):
        return sqlite.open_engine(where, durability=durability)
    try:
        return postgres.open_engine(postgres.address(where))
    except ValueError as error:
        raise DatabaseError(f"The address of the database is none: {error}.") from None


def shown(engine: Engine) -> str:
    """Which database it is, without its password."""
    if engine.dialect.name == _SQLITE:
        return str(engine.url.database)
    return postgres.shown(engine.url)


@contextmanager
def writing(engine: Engine, *, lock: str) -> Generator[Connection]:
    """A transaction that is alone among all that use the same lock, of whatever process.

    What it reads is then still so when it writes. It commits at the end, or rolls back on an error.

    Args:
        engine: The database.
        lock: A name for what must not change meanwhile, such as "keys".

    Raises:
        SQLAlchemyError: The database cannot be reached, or the lock was not to be had in
            `postgres.WAIT_S`.
    """
    with engine.begin() as connection:
        _take(connection, lock)
        yield connection


def unbounded(connection: Connection) -> None:
    """Lets this transaction take as long as it takes, for what reads or changes a great deal."""
    if connection.dialect.name != _SQLITE:
        postgres.lift_bounds(connection)


def revisions(engine: Engine) -> tuple[str | None, list[str]]:
    """The revision that the tables are of, if any, and those that come after it, in order.

    Raises:
        DatabaseError: It cannot be reached, or was written by a newer Embedway.
    """
    script = ScriptDirectory.from_config(_config())
    known = [each.revision for each in script.walk_revisions()][::-1]
    with _explained(engine), engine.connect() as connection:
        current = MigrationContext.configure(connection).get_current_revision()
    if current is None:
        return None, known
    if current not in known:
        raise DatabaseError(
            f"The database {shown(engine)} was written by a newer Embedway: its revision is "
            f"{current}, the newest that this one knows is {known[-1]}. Install a newer one, or "
            "name another database."
        )
    return current, known[known.index(current) + 1 :]


def upgrade(engine: Engine) -> None:
    """Brings the tables up to date.

    Raises:
        DatabaseError: It cannot be reached, or was written by a newer Embedway.
    """
    _, pending = revisions(engine)
    if not pending:
        return
    config = _config()
    with _explained(engine), engine.begin() as connection:
        unbounded(connection)
        # Two processes may start at once: the second waits here and then finds it done.
        _take(connection, "migrations")
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


@contextmanager
def _explained(engine: Engine) -> Generator[None]:
    try:
        yield
    except (SQLAlchemyError, OSError) as error:
        raise DatabaseError(
            f"Cannot open the database {shown(engine)}: {explain(error)}"
        ) from error


def explain(error: SQLAlchemyError | OSError) -> str:
    """What went wrong with the database, and what to do."""
    if isinstance(error, TooBusy):
        return "All connections to it were in use for too long. Try again, or run more gateways."
    cause = getattr(error, "orig", None) or error
    if type(cause).__module__.startswith("psycopg"):
        return postgres.explain(error, cause)
    return sqlite.explain(error, cause)


def _take(connection: Connection, lock: str) -> None:
    if connection.dialect.name == _SQLITE:
        # There is one writer at a time whatever it is called.
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        postgres.take_lock(connection, lock)


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config
