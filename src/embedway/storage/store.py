"""What is kept: the database and, apart from it, the pepper that keys are hashed with."""

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
"""Of SQLite, in the data folder."""
PEPPER = "pepper"
"""Likewise, unless the settings give it."""


class Store(msgspec.Struct, frozen=True):
    """What is kept, open."""

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
    """Opens what is kept.

    Args:
        folder: The data folder.
        database_url: Of Postgres; the file in the folder if not given.
        pepper: In hex; the file in the folder if not given.
        create: Whether to make it where there is none; see `database.connect`.
        durability: See `database.connect`.

    Raises:
        DatabaseMissing: There is none, and it is not to be created.
        DatabaseError: It cannot be made or opened, or its keys were made with another pepper.
    """
    with _explained(folder):
        if create and (database_url is None or pepper is None):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        where = database_url or folder / SQLITE_FILE
        engine = database.connect(where, create=create, durability=durability)
    try:
        with _explained(folder):
            secret = peppers.load_pepper(engine, folder / PEPPER, given=pepper)
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
