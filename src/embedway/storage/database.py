"""Opens the database and brings its tables up to date.

Owns the connection settings that durability rests on. Knows nothing of what is stored.
"""

import os
from functools import partial
from pathlib import Path
from sqlite3 import Connection as SqliteConnection
from typing import Literal

from alembic import command
from alembic.config import Config
from alembic.util.exc import CommandError
from sqlalchemy import URL, Engine, create_engine, event
from sqlalchemy.exc import OperationalError, SQLAlchemyError

MIGRATIONS = Path(__file__).parent / "migrations"
LOCK_WAIT_S = 5

Durability = Literal["process", "power"]
"""What a commit survives: the end of the process, however sudden, or a power cut too."""

# In WAL mode both survive kill -9; FULL also waits for the disk at each commit.
_SYNCHRONOUS: dict[Durability, str] = {"process": "NORMAL", "power": "FULL"}


class DatabaseError(Exception):
    """The database cannot be opened; the message says why and what to do."""


class DatabaseGone(SQLAlchemyError):
    """The database was deleted or replaced while it was open."""


def connect(path: Path, *, durability: Durability = "process") -> Engine:
    """The SQLite database at `path`, created and migrated as needed.

    Args:
        path: The file.
        durability: What a commit survives.

    Raises:
        DatabaseError: It cannot be opened, or was written by a newer Embedway.
    """
    url = URL.create("sqlite", database=str(path))  # a path may hold what means something in a URL
    engine = create_engine(
        url,
        connect_args={"timeout": LOCK_WAIT_S},
        hide_parameters=True,  # they are users' data
    )
    event.listen(engine, "connect", partial(_prepare, _SYNCHRONOUS[durability]))
    try:
        _upgrade(engine)
    except CommandError as error:
        raise DatabaseError(
            f"The database {path} was written by a newer Embedway: {error}. Install a newer "
            "one, or set EMBEDWAY_DATA_DIR to another folder."
        ) from error
    except (SQLAlchemyError, OSError) as error:
        raise DatabaseError(f"Cannot open the database {path}: {explain(error)}") from error
    _guard(engine, path)
    return engine


def explain(error: SQLAlchemyError | OSError) -> str:
    """What went wrong with the database, and what to do."""
    cause = getattr(error, "orig", None) or error
    if isinstance(error, OperationalError | OSError):
        return (
            f"{cause}. Check that the data folder is writable, the disk not full and no other "
            "program busy with it, or set EMBEDWAY_DATA_DIR to another folder."
        )
    return (
        f"{cause}. It is damaged. Restore it from a copy, or move it away to begin with an empty "
        "one: keys and usage are in it."
    )


def _prepare(synchronous: str, connection: SqliteConnection, _: object) -> None:
    # WAL lets the CLI read while the server writes.
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {synchronous}")


def _guard(engine: Engine, path: Path) -> None:
    # SQLite goes on writing to a file that was deleted under it, where nobody will read it again.
    opened = path.stat()

    def check(*_: object) -> None:
        try:
            same = os.path.samestat(path.stat(), opened)
        except OSError:
            same = False
        if not same:
            raise DatabaseGone(f"{path} is not the file it was. Restart this process.")

    event.listen(engine, "checkout", check)


def _upgrade(engine: Engine) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    with engine.begin() as connection:
        # Two processes may start at once: the second waits here and then finds it done.
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
