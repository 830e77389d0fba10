"""Copies all rows of a SQLite database into an empty Postgres.

It copies everything or nothing: one snapshot, written in one transaction.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import msgspec
from sqlalchemy import (
    JSON,
    Connection,
    Engine,
    Table,
    Text,
    delete,
    func,
    select,
    type_coerce,
)

from embedway.core.project import DEFAULT_PROJECT
from embedway.storage import database
from embedway.storage.tables import metadata, projects, usage

CHUNK_ROWS = 5_000

TABLES: Sequence[Table] = metadata.sorted_tables

CopyProgress = Callable[[str, int, int], None]
"""Receives a table's name, the number of rows copied so far, and the number of all its rows."""


class CopyError(Exception):
    """Nothing was copied. The message says why and what to do."""


class CopyReport(msgspec.Struct, frozen=True):
    """What was copied."""

    rows: dict[str, int]
    """The number of copied rows by table."""
    missed_records: int
    """Usage records that were written during the copy, and are not in it."""


def copy_database(source: Engine, target: Engine, *, progress: CopyProgress) -> CopyReport:
    """Copy every row that `source` has now into `target`.

    Args:
        source: A SQLite database that is up to date. What is written meanwhile is not copied.
        target: A Postgres database that is up to date and empty.
        progress: Called after each chunk.

    Raises:
        CopyError: `target` is not empty, or the copy differs from the original.
        SQLAlchemyError: A database failed. Nothing was copied.
    """
    with source.connect() as reading, target.begin() as writing:
        reading.exec_driver_sql("BEGIN")  # all reads from here on see one snapshot
        database.lift_time_limits(writing)
        _lock_empty_tables(writing)
        before = _totals(reading)
        for table in TABLES:
            _copy_table(reading, writing, table, before[table.name][0], progress)
        after = _totals(writing)
        differing = [name for name in before if before[name] != after[name]]
        if differing:
            raise CopyError(
                f"The copy differs from the original in {', '.join(differing)}, so it was undone. "
                "Try again. If that fails too, report it."
            )
        # Leave the snapshot, to count what was written since.
        reading.rollback()
        missed = (reading.scalar(_count(usage)) or 0) - before[usage.name][0]
    return CopyReport(
        rows={name: totals[0] for name, totals in before.items()}, missed_records=max(0, missed)
    )


def _lock_empty_tables(connection: Connection) -> None:
    """Keep others from writing to any table, and check that all are empty."""
    names = ", ".join(map(connection.dialect.identifier_preparer.format_table, TABLES))
    connection.exec_driver_sql(f"LOCK TABLE {names} IN EXCLUSIVE MODE")
    # A default project that was ever changed leaves rows in `audit`, which the check finds.
    connection.execute(delete(projects).where(projects.c.id == DEFAULT_PROJECT))
    full = [table.name for table in TABLES if connection.scalar(_count(table))]
    if full:
        raise CopyError(
            f"There are rows in {', '.join(full)} of {database.describe(connection.engine)}. "
            "Name an empty database. `createdb` makes one."
        )


def _copy_table(
    reading: Connection, writing: Connection, table: Table, total: int, progress: CopyProgress
) -> None:
    quoted = writing.dialect.identifier_preparer
    columns = ", ".join(map(quoted.format_column, table.columns))
    driver: Any = writing.connection.driver_connection
    progress(table.name, 0, total)
    done = 0
    statement = f"COPY {quoted.format_table(table)} ({columns}) FROM STDIN"
    with driver.cursor() as cursor, cursor.copy(statement) as into:
        for rows in _chunks(reading, table):
            for row in rows:
                into.write_row(row)
            done += len(rows)
            progress(table.name, done, total)


def _chunks(reading: Connection, table: Table) -> Iterator[Sequence[Sequence[Any]]]:
    # JSON as text, so that it is copied unchanged.
    columns = [
        type_coerce(each, Text) if isinstance(each.type, JSON) else each for each in table.columns
    ]
    query = select(*columns).execution_options(yield_per=CHUNK_ROWS)
    yield from cast("Any", reading.execute(query)).partitions()


def _totals(connection: Connection) -> dict[str, tuple[int, ...]]:
    """Return for each table the number of rows, and the sum of each column of money or tokens."""
    totals: dict[str, tuple[int, ...]] = {}
    for table in TABLES:
        summed = [each for each in table.c if each.name.endswith(("_nano_usd", "tokens"))]
        sums = (func.coalesce(func.sum(each), 0) for each in summed)
        row = connection.execute(select(func.count(), *sums).select_from(table)).one()
        totals[table.name] = tuple(map(int, row))
    return totals


def _count(table: Table) -> Any:
    return select(func.count()).select_from(table)
