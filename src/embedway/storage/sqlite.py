"""Opens SQLite files with the settings that durability needs, and explains SQLite's errors."""

import fcntl
import os
import sqlite3
import tempfile
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from sqlite3 import Connection as Session
from typing import Any, Literal

from sqlalchemy import URL, Engine, create_engine, event
from sqlalchemy.exc import OperationalError, SQLAlchemyError

LOCK_WAIT_S = 5

Durability = Literal["process", "power"]
"""What a commit survives: a crash of the process, or a power cut too."""

# In WAL mode both survive kill -9; FULL also waits for the disk at each commit.
_SYNCHRONOUS: dict[Durability, str] = {"process": "NORMAL", "power": "FULL"}


class DatabaseFileMissing(SQLAlchemyError):
    """The database was deleted or replaced while it was open."""


def open_engine(path: Path, *, durability: Durability) -> Engine:
    """Make an engine that opens the file at `path` when it is used."""
    url = URL.create("sqlite", database=str(path))  # escapes the path
    engine = create_engine(
        url,
        connect_args={"timeout": LOCK_WAIT_S},
        hide_parameters=True,  # they are user data
    )
    event.listen(engine, "connect", partial(_prepare, _SYNCHRONOUS[durability]))
    return engine


def watch_file(engine: Engine, path: Path) -> None:
    """Make `engine` raise `DatabaseFileMissing` once the file at `path` is gone or another one."""
    # Without this, SQLite would go on writing to the deleted file.
    original = path.stat()

    def check(*_: object) -> None:
        try:
            is_same = os.path.samestat(path.stat(), original)
        except OSError:
            is_same = False
        if not is_same:
            raise DatabaseFileMissing(f"{path} was deleted or replaced. Restart this process.")

    event.listen(engine, "checkout", check)


class CommitTurn:
    """Makes processes that commit to one file often wait for each other.

    SQLite lets whoever finds the file locked sleep for milliseconds, many times what a commit
    takes, and look again. Those who wait here go on as soon as the one before them is done. It is
    no more than a courtesy: SQLite's own lock protects the file.
    """

    def __init__(self, engine: Engine) -> None:
        """Take part in the turns of the file of `engine`."""
        # A lock on the folder, so that nothing is added to it. SQLite locks the file in another
        # way, and would lose its locks if the file were opened and closed here.
        self._folder = os.open(Path(str(engine.url.database)).absolute().parent, os.O_RDONLY)

    def __enter__(self) -> None:
        """Wait for this process's turn."""
        with suppress(OSError):  # some file systems have no such locks
            fcntl.flock(self._folder, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        """Let the next one begin."""
        with suppress(OSError):
            fcntl.flock(self._folder, fcntl.LOCK_UN)

    def close(self) -> None:
        """Take part no more."""
        os.close(self._folder)


def backup(engine: Engine, file: Path) -> None:
    """Copy the database as it is at one moment into a new file, while others write.

    The file appears complete or not at all, and only its owner may read it.

    Raises:
        FileExistsError: The file exists.
        OSError: The folder cannot be written to, the disk is full, or the database cannot be read.
    """
    if file.exists():
        raise FileExistsError(file)
    with tempfile.TemporaryDirectory(dir=file.absolute().parent, prefix=f".{file.name}.") as folder:
        fresh = Path(folder) / file.name
        try:
            with engine.connect() as connection, closing(sqlite3.connect(fresh)) as copy:
                source: Any = connection.connection.driver_connection
                source.backup(copy)
        except sqlite3.Error as error:
            raise OSError(f"{file} cannot be made: {error}") from error
        fresh.chmod(0o600)
        # Unlike a rename, a link never replaces a file.
        os.link(fresh, file)


def explain(error: SQLAlchemyError | OSError, cause: BaseException) -> str:
    """Return what went wrong, and what to do."""
    if isinstance(error, OperationalError | OSError):
        return (
            f"{cause}. Check that the data folder is writable, the disk is not full and no other "
            "program uses the database, or set EMBEDWAY_DATA_DIR to another folder."
        )
    return (
        f"{cause}. It is damaged. Restore it from a copy, or move it away to start with an empty "
        "one: keys and usage are in it."
    )


def _prepare(synchronous: str, connection: Session, _: object) -> None:
    # WAL lets the CLI read while the server writes.
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {synchronous}")
