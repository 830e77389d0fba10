"""How a group of the ledger is committed on SQLite.

It speaks to the driver itself: what SQLAlchemy adds to each statement is as much as SQLite needs
for it, and every answer waits for this.
"""

import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from itertools import starmap
from typing import Any, cast

import msgspec
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from embedway.core.usage import UsageRecord
from embedway.ledger.commits import (
    DECREMENT_HOLD,
    DELETE,
    STATUS,
    CommitError,
    CommitGroup,
    CommitRejected,
    ConnectionLost,
    column_names,
    upsert_sql,
)
from embedway.ledger.rollups import ROLLUPS, Key, RollupSums
from embedway.storage.tables import SUMS

_FIELDS = UsageRecord.__struct_fields__
_METADATA = _FIELDS.index("metadata")


def _marks(count: int) -> str:
    return f"VALUES ({', '.join('?' * count)})"


_INSERT = f'INSERT INTO "usage" ({column_names([*_FIELDS, "end_user"])}) {_marks(len(_FIELDS) + 1)}'
_ADD = [upsert_sql(each, _marks(len(each.by) + len(SUMS))) for each in ROLLUPS]
_LESSEN = DECREMENT_HOLD.format("?")
_DELETE = DELETE.format("?")
_STATUS = STATUS.format("?")

# What the driver says of values that cannot be stored.
_REFUSED = (
    sqlite3.IntegrityError,
    sqlite3.DataError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
    OverflowError,
    ValueError,
    TypeError,
)


class SqliteLedgerWriter:
    """See `embedway.ledger.commits.LedgerWriter`."""

    def __init__(self, engine: Engine, *, process: str) -> None:
        """Takes the database, and whose holds are made less."""
        self._engine = engine
        self._process = process

    def commit(self, group: CommitGroup) -> None:
        """See `embedway.ledger.commits.LedgerWriter.commit`."""
        with self._session() as session:
            if group.removed:
                session.execute(_DELETE, (group.removed,))
            session.executemany(_INSERT, map(_row, group.lines))
            for add, sums in zip(_ADD, group.sums, strict=True):
                session.executemany(add, starmap(_joined, sums))
            if group.held:
                held = [(amount, subject, self._process) for subject, amount in group.held]
                session.executemany(_LESSEN, held)
            session.commit()

    def status(self, id: str) -> int | None:
        """See `embedway.ledger.commits.LedgerWriter.status`."""
        with self._session() as session:
            found = session.execute(_STATUS, (id,)).fetchone()
            return found and found[0]

    def close(self) -> None:
        """See `embedway.ledger.commits.LedgerWriter.close`."""

    @contextmanager
    def _session(self) -> Generator[sqlite3.Connection]:
        try:
            pooled = self._engine.raw_connection()
            try:
                yield cast("sqlite3.Connection", pooled.driver_connection)
            finally:
                pooled.close()  # rolls back what is not committed
        except _REFUSED as error:
            raise CommitRejected(f"{type(error).__name__}: {error}") from None
        except sqlite3.OperationalError as error:
            told = f"{type(error).__name__}: {error}"
            # Somebody else writes for longer than this waits; nothing of it is committed.
            busy = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY
            raise (ConnectionLost(told, in_doubt=False) if busy else CommitError(told)) from None
        except (sqlite3.Error, SQLAlchemyError) as error:
            raise CommitError(f"{type(error).__name__}: {error}") from None


def _joined(key: Key, sums: RollupSums) -> tuple[int | str, ...]:
    return key + sums


def _row(line: UsageRecord) -> tuple[Any, ...]:
    fields = msgspec.structs.astuple(line)
    metadata = msgspec.json.encode(fields[_METADATA]).decode()
    end_user = line.end_user or ""
    return (*fields[:_METADATA], metadata, *fields[_METADATA + 1 :], end_user)
