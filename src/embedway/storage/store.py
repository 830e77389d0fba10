"""The data folder: the database and, beside it, the pepper that keys are hashed with."""

from pathlib import Path

import msgspec
from sqlalchemy import Engine as Database

from embedway.storage import database, pepper
from embedway.storage.database import Durability
from embedway.storage.keys import SqlKeys
from embedway.storage.spaces import SqlSpaces


class Store(msgspec.Struct, frozen=True):
    """What is kept in the data folder."""

    database: Database
    keys: SqlKeys
    pepper: bytes
    spaces: SqlSpaces


def open_store(folder: Path, *, durability: Durability = "process") -> Store:
    """Opens the data folder, making it on first use; see `database.connect` for `durability`.

    Raises:
        DatabaseError: It cannot be made or opened.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        secret = pepper.read_or_create(folder / "pepper")
    except OSError as error:
        raise database.DatabaseError(
            f"Cannot use the data folder {folder}: {error.strerror}. Make it a folder you can "
            "write to, or set EMBEDWAY_DATA_DIR to another one."
        ) from error
    engine = database.connect(folder / "embedway.db", durability=durability)
    return Store(engine, SqlKeys(engine), secret, SqlSpaces(engine))
