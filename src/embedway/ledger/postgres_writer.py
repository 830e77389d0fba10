"""Commits a group of ledger entries on Postgres in one round trip.

It calls the driver directly: a pipeline sends all statements of a transaction at once. Rows go as
one JSON value, which takes a quarter of the work of passing each value by itself.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import msgspec
import psycopg
from sqlalchemy import Engine, PoolProxiedConnection, Table
from sqlalchemy.dialects import postgresql
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
from embedway.storage.tables import SUMS, usage

_FIELDS = UsageRecord.__struct_fields__
_TYPES = postgresql.dialect()  # pyright: ignore[reportNoUntypedCall]  # SQLAlchemy's own


def _rows(table: Table, columns: Sequence[str]) -> str:
    types = (f'"{each}" {table.c[each].type.compile(_TYPES)}' for each in columns)
    return f"FROM json_to_recordset(%s::json) AS record({', '.join(types)})"


_END_USER = """coalesce(nullif("on_behalf_of", ''), nullif("user", ''), '')"""
"""The SQL of `UsageRecord.end_user`."""
_INSERT = (
    f'INSERT INTO "usage" ({column_names(_FIELDS)}, "end_user") '  # constants, no user input
    f"SELECT {column_names(_FIELDS)}, {_END_USER} {_rows(usage, _FIELDS)}"
).encode()
_COLUMNS = [[*each.key_columns, *SUMS] for each in ROLLUPS]
_ADD = [
    upsert_sql(each, f"SELECT {column_names(columns)} {_rows(each.table, columns)}").encode()
    for each, columns in zip(ROLLUPS, _COLUMNS, strict=True)
]
_DECREMENT = DECREMENT_HOLD.format("%s").encode()
_DELETE = DELETE_RECORDS.format("%s").encode()
_STATUS = SELECT_STATUS.format("%s").encode()

_RETRYABLE = ("08", "40", "57P", "53300", "55P03", "57014")
"""SQLSTATE prefixes to retry: lost connections, serialization failures, no free connection, and
timeouts of locks and statements."""
_REJECTED = ("22", "23", "54")
"""SQLSTATE prefixes of values that are rejected, or too large for an index."""


class PostgresLedgerWriter:
    """Writes groups to Postgres."""

    def __init__(self, engine: Engine, *, process: str) -> None:
        self._engine = engine
        self._process = process
        # Kept open, because the pool would test the connection before each commit.
        self._pooled: PoolProxiedConnection | None = None

    def commit(self, group: CommitGroup) -> None:
        """Commit all of `group` or nothing; raise `CommitError`."""
        with self._session() as session:
            records = msgspec.json.encode(group.records).decode()
            with session.pipeline():
                if group.replaced_id:
                    session.execute(_DELETE, (group.replaced_id,))
                session.execute(_INSERT, (records,))
                for add, columns, sums in zip(_ADD, _COLUMNS, group.rollup_rows, strict=True):
                    rows = [dict(zip(columns, key + each, strict=True)) for key, each in sums]
                    session.execute(add, (msgspec.json.encode(rows).decode(),))
                for subject, amount in group.hold_decreases:
                    session.execute(_DECREMENT, (amount, subject, self._process))
                session.commit()

    def status(self, id: str) -> int | None:
        """Return the status of the committed request with this id; raise `CommitError`."""
        with self._session() as session:
            found = session.execute(_STATUS, (id,)).fetchone()
            session.rollback()
            return found and found[0]

    def close(self) -> None:
        """Return the connection to the pool."""
        if self._pooled is not None:
            self._pooled.close()
            self._pooled = None

    @contextmanager
    def _session(self) -> Generator[psycopg.Connection[Any]]:
        reached = False
        try:
            if self._pooled is None:
                self._pooled = self._engine.raw_connection()
            reached = True
            yield cast("psycopg.Connection[Any]", self._pooled.driver_connection)
        except (psycopg.Error, SQLAlchemyError, OverflowError, ValueError, TypeError) as error:
            self._abandon()
            raise _failure(error, in_doubt=reached) from None
        except BaseException:
            self._abandon()
            raise

    def _abandon(self) -> None:
        # Closing it makes the server roll back what is not committed.
        if self._pooled is not None:
            self._pooled.invalidate()
            self._pooled.close()
            self._pooled = None


def _failure(error: Exception, *, in_doubt: bool) -> CommitError:
    cause = getattr(error, "orig", None) or error
    if not isinstance(cause, psycopg.Error):
        kind = CommitError if isinstance(error, SQLAlchemyError) else CommitRejected
        return kind(f"{type(cause).__name__}: {cause}")
    # The primary message only, because the details contain the row.
    message = f"{type(cause).__name__}: {cause.diag.message_primary or cause}"
    code = cause.sqlstate
    if code is None:
        is_lost = isinstance(cause, psycopg.OperationalError | psycopg.InterfaceError)
        return ConnectionLost(message, in_doubt=in_doubt) if is_lost else CommitRejected(message)
    if code.startswith(_RETRYABLE):
        return ConnectionLost(message, in_doubt=in_doubt)
    return CommitRejected(message) if code.startswith(_REJECTED) else CommitError(message)
