"""Commits a group of ledger entries on SQLite.

It calls the driver directly, because every response waits for this, and SQLAlchemy would double the
time of each statement.
"""

import sqlite3
from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from itertools import starmap
from operator import add
from typing import Any, cast

import msgspec
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from embedway.core.usage import UsageRecord
from embedway.ledger.commits import (
    DECREMENT_HOLD,
    DELETE_RECORDS,
    SELECT_STATUS,
    CommitError,
    CommitGroup,
    CommitRejected,
    ConnectionLost,
    column_names,
    upsert_sql,
)
from embedway.ledger.rollups import ROLLUPS
from embedway.storage.sqlite import CommitTurn
from embedway.storage.tables import SUMS

_FIELDS = UsageRecord.__struct_fields__
_METADATA = _FIELDS.index("metadata")


def _marks(count: int) -> str:
    return f"VALUES ({', '.join('?' * count)})"


_INSERT = f'INSERT INTO "usage" ({column_names([*_FIELDS, "end_user"])}) {_marks(len(_FIELDS) + 1)}'
_ADD = [upsert_sql(each, _marks(len(each.key_columns) + len(SUMS))) for each in ROLLUPS]
_DECREMENT = DECREMENT_HOLD.format("?")
_DELETE = DELETE_RECORDS.format("?")
_STATUS = SELECT_STATUS.format("?")

# What the driver raises for values that cannot be stored.
_REJECTED = (
    sqlite3.IntegrityError,
    sqlite3.DataError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
    OverflowError,
    ValueError,
    TypeError,
)


class SqliteLedgerWriter:
    """Writes groups to SQLite."""

    def __init__(self, engine: Engine, *, process: str, is_shared: bool = False) -> None:
        """Write to `engine`; if its file `is_shared`, other processes commit to it all the time."""
        self._engine = engine
        self._process = process
        self._turn = CommitTurn(engine) if is_shared else None

    def commit(self, group: CommitGroup) -> None:
        """Commit all of `group` or nothing; raise `CommitError`."""
        with self._turn or nullcontext(), self._session() as session:
            if group.replaced_id:
                session.execute(_DELETE, (group.replaced_id,))
            session.executemany(_INSERT, map(_row, group.records))
            for statement, sums in zip(_ADD, group.rollup_rows, strict=True):
                session.executemany(statement, starmap(add, sums))
            if group.hold_decreases:
                decreases = [
                    (cost, subject, self._process) for subject, cost in group.hold_decreases
                ]
                session.executemany(_DECREMENT, decreases)
            session.commit()

    def status(self, id: str) -> int | None:
        """Return the status of the committed request with this id; raise `CommitError`."""
        with self._session() as session:
            found = session.execute(_STATUS, (id,)).fetchone()
            return found and found[0]

    def close(self) -> None:
        """Give up the turns. Each session has already returned its connection."""
        if self._turn:
            self._turn.close()

    @contextmanager
    def _session(self) -> Generator[sqlite3.Connection]:
        try:
            pooled = self._engine.raw_connection()
            try:
                yield cast("sqlite3.Connection", pooled.driver_connection)
            finally:
                pooled.close()  # rolls back what is not committed
        except _REJECTED as error:
            raise CommitRejected(f"{type(error).__name__}: {error}") from None
        except sqlite3.OperationalError as error:
            message = f"{type(error).__name__}: {error}"
            # Another program wrote for too long. Nothing of this group is committed.
            is_busy = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY
            raise (ConnectionLost(message) if is_busy else CommitError(message)) from None
        except (sqlite3.Error, SQLAlchemyError) as error:
            raise CommitError(f"{type(error).__name__}: {error}") from None


def _row(record: UsageRecord) -> tuple[Any, ...]:
    fields = msgspec.structs.astuple(record)
    metadata = msgspec.json.encode(fields[_METADATA]).decode()
    end_user = record.end_user or ""
    return (*fields[:_METADATA], metadata, *fields[_METADATA + 1 :], end_user)
