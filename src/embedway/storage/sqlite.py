"""What is SQLite's own: the settings that durability rests on, and what its failures mean.

Knows nothing of the tables.
"""

import os
from functools import partial
from pathlib import Path
from sqlite3 import Connection as Session
from typing import Literal

from sqlalchemy import URL, Engine, create_engine, event
from sqlalchemy.exc import OperationalError, SQLAlchemyError

LOCK_WAIT_S = 5

Durability = Literal["process", "power"]
"""What a commit survives: the end of the process, however sudden, or a power cut too."""

# In WAL mode both survive kill -9; FULL also waits for the disk at each commit.
_SYNCHRONOUS: dict[Durability, str] = {"process": "NORMAL", "power": "FULL"}


class DatabaseFileMissing(SQLAlchemyError):
    """The database was deleted or replaced while it was open."""


def open_engine(path: Path, *, durability: Durability) -> Engine:
    """Connections to the file at `path`, made when they are needed."""
    url = URL.create("sqlite", database=str(path))  # a path may hold what means something in a URL
    engine = create_engine(
        url,
        connect_args={"timeout": LOCK_WAIT_S},
        hide_parameters=True,  # they are users' data
    )
    event.listen(engine, "connect", partial(_prepare, _SYNCHRONOUS[durability]))
    return engine


def watch_file(engine: Engine, path: Path) -> None:
    """Fails whoever uses `engine` once another file, or none, is at `path`."""
    # SQLite goes on writing to a file that was deleted under it, where nobody will read it again.
    opened = path.stat()

    def check(*_: object) -> None:
        try:
            same = os.path.samestat(path.stat(), opened)
        except OSError:
            same = False
        if not same:
            raise DatabaseFileMissing(f"{path} is not the file it was. Restart this process.")

    event.listen(engine, "checkout", check)


def explain(error: SQLAlchemyError | OSError, cause: BaseException) -> str:
    """What went wrong, and what to do."""
    if isinstance(error, OperationalError | OSError):
        return (
            f"{cause}. Check that the data folder is writable, the disk not full and no other "
            "program busy with it, or set EMBEDWAY_DATA_DIR to another folder."
        )
    return (
        f"{cause}. It is damaged. Restore it from a copy, or move it away to begin with an empty "
        "one: keys and usage are in it."
    )


def _prepare(synchronous: str, connection: Session, _: object) -> None:
    # WAL lets the CLI read while the server writes.
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {synchronous}")
