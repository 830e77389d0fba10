"""How a group of the ledger is committed on Postgres: in one round trip.

It speaks to the driver itself: a pipeline sends all statements of a transaction at once, and rows
go as one JSON value, which is a quarter of the work of passing each value by itself.
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
    DELETE,
    STATUS,
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
    return f"FROM json_to_recordset(%s::json) AS line({', '.join(types)})"


_END_USER = """coalesce(nullif("on_behalf_of", ''), nullif("user", ''), '')"""
"""As `UsageRecord.end_user`."""
_INSERT = (
    f'INSERT INTO "usage" ({column_names(_FIELDS)}, "end_user") '  # names of ours
    f"SELECT {column_names(_FIELDS)}, {_END_USER} {_rows(usage, _FIELDS)}"
).encode()
_COLUMNS = [[*each.by, *SUMS] for each in ROLLUPS]
_ADD = [
    upsert_sql(
        each, f"SELECT {column_names(columns)} {_rows(each.table, columns)}"
    ).encode()  # likewise
    for each, columns in zip(ROLLUPS, _COLUMNS, strict=True)
]
_LESSEN = DECREMENT_HOLD.format("%s").encode()
_DELETE = DELETE.format("%s").encode()
_STATUS = STATUS.format("%s").encode()

_AGAIN = ("08", "40", "57P", "53300", "55P03", "57014")
"""Codes of a connection that ends, of giving way to another transaction, of no more connections,
and of a lock or a statement that took too long."""
_UNFIT = ("22", "23", "54")
"""Codes of values that are refused, and of ones too large for an index."""


class PostgresLedgerWriter:
    """See `embedway.ledger.commits.LedgerWriter`."""

    def __init__(self, engine: Engine, *, process: str) -> None:
        """Takes the database, and whose holds are made less."""
        self._engine = engine
        self._process = process
        # Kept, for the pool would ask at each commit whether it still works.
        self._pooled: PoolProxiedConnection | None = None

    def commit(self, group: CommitGroup) -> None:
        """See `embedway.ledger.commits.LedgerWriter.commit`."""
        with self._session() as session:
            lines = msgspec.json.encode(group.lines).decode()
            with session.pipeline():
                if group.removed:
                    session.execute(_DELETE, (group.removed,))
                session.execute(_INSERT, (lines,))
                for add, columns, sums in zip(_ADD, _COLUMNS, group.sums, strict=True):
                    rows = [dict(zip(columns, key + each, strict=True)) for key, each in sums]
                    session.execute(add, (msgspec.json.encode(rows).decode(),))
                for subject, amount in group.held:
                    session.execute(_LESSEN, (amount, subject, self._process))
                session.commit()

    def status(self, id: str) -> int | None:
        """See `embedway.ledger.commits.LedgerWriter.status`."""
        with self._session() as session:
            found = session.execute(_STATUS, (id,)).fetchone()
            session.rollback()
            return found and found[0]

    def close(self) -> None:
        """See `embedway.ledger.commits.LedgerWriter.close`."""
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
        # A connection in doubt is closed: what it had not committed is rolled back by the server.
        if self._pooled is not None:
            self._pooled.invalidate()
            self._pooled.close()
            self._pooled = None


def _failure(error: Exception, *, in_doubt: bool) -> CommitError:
    cause = getattr(error, "orig", None) or error
    if not isinstance(cause, psycopg.Error):
        kind = CommitError if isinstance(error, SQLAlchemyError) else CommitRejected
        return kind(f"{type(cause).__name__}: {cause}")
    # Its details would tell the row.
    told = f"{type(cause).__name__}: {cause.diag.message_primary or cause}"
    code = cause.sqlstate
    if code is None:
        gone = isinstance(cause, psycopg.OperationalError | psycopg.InterfaceError)
        return ConnectionLost(told, in_doubt=in_doubt) if gone else CommitRejected(told)
    if code.startswith(_AGAIN):
        return ConnectionLost(told, in_doubt=in_doubt)
    return CommitRejected(told) if code.startswith(_UNFIT) else CommitError(told)
