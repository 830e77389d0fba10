"""Opens the database and the pepper, which is kept apart from it."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from sqlalchemy import Engine as Database
from sqlalchemy.exc import SQLAlchemyError

from embedway.storage import database
from embedway.storage import pepper as peppers
from embedway.storage.availability import DatabaseAvailability
from embedway.storage.database import DatabaseError
from embedway.storage.sqlite import Durability

SQLITE_FILE = "embedway.db"
"""The name of the SQLite file in the data folder."""
PEPPER = "pepper"
"""The name of the file with the pepper in the data folder."""


class Store(msgspec.Struct, frozen=True):
    """An open database with its pepper."""

    database: Database
    pepper: bytes
    availability: DatabaseAvailability


def open_store(
    folder: Path,
    *,
    database_url: str | None = None,
    pepper: str | None = None,
    create: bool = True,
    durability: Durability = "process",
) -> Store:
    """Open the database and load its pepper.

    Args:
        folder: The data folder.
        database_url: The URL of Postgres; if None, the SQLite file in the folder is used.
        pepper: The pepper in hex; if None, the file in the folder is used.
        create: Whether to create the database and upgrade its tables if necessary.
        durability: What a commit survives on SQLite.

    Raises:
        DatabaseMissing: There is no database, and `create` is false.
        DatabaseError: It cannot be made or opened, or its keys were made with another pepper.
    """
    with _explained(folder):
        if create and (database_url is None or pepper is None):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        where = database_url or folder / SQLITE_FILE
        engine = database.connect(where, create=create, durability=durability)
        try:
            secret = peppers.load_pepper(engine, folder / PEPPER, configured=pepper)
        except BaseException:
            engine.dispose()
            raise
    return Store(engine, secret, DatabaseAvailability())


@contextmanager
def _explained(folder: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise DatabaseError(
            f"Cannot use the data folder {folder}: {error.strerror}. Make it a folder you can "
            "write to, or set EMBEDWAY_DATA_DIR to another one."
        ) from error
    except SQLAlchemyError as error:
        raise DatabaseError(f"The database failed: {database.explain(error)}") from error
