"""Moves all rows of a SQLite database into an empty Postgres.

Everything or nothing: one transaction, read from one snapshot. Knows the tables only as tables.
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

Progress = Callable[[str, int, int], None]
"""Told the table, the rows of it that are copied, and the rows that it has."""


class CopyError(Exception):
    """Nothing was copied; the message says why and what to do."""


class CopyReport(msgspec.Struct, frozen=True):
    """What was copied."""

    rows: dict[str, int]
    """Of each table."""
    later: int
    """Lines of usage that were written while it was copied, and are not in the copy."""


def copy_database(source: Engine, target: Engine, *, progress: Progress) -> CopyReport:
    """Copies every row of `source`, as it is now, into `target`.

    Args:
        source: On SQLite, up to date. It may be written to meanwhile; that is not copied.
        target: On Postgres, up to date and empty.
        progress: Told after each chunk.

    Raises:
        CopyError: `target` is not empty, or the copy was not like the original.
        SQLAlchemyError: Either database failed. Nothing was copied.
    """
    with source.connect() as reading, target.begin() as writing:
        reading.exec_driver_sql("BEGIN")  # what is read from here on is of one moment
        database.lift_time_limits(writing)
        _reserve(writing)
        before = _totals(reading)
        for table in TABLES:
            _copy_table(reading, writing, table, before[table.name][0], progress)
        after = _totals(writing)
        differing = [name for name in before if before[name] != after[name]]
        if differing:
            raise CopyError(
                f"The copy is not like the original in {', '.join(differing)}, so it was undone. "
                "Try again; if it stays so, report it."
            )
        # The snapshot is older than this, and so of before what is counted now.
        reading.rollback()
        later = (reading.scalar(_count(usage)) or 0) - before[usage.name][0]
    return CopyReport(
        rows={name: totals[0] for name, totals in before.items()}, later=max(0, later)
    )


def _reserve(connection: Connection) -> None:
    """Keeps everybody else from writing to any table, and sees that there is nothing yet."""
    names = ", ".join(map(connection.dialect.identifier_preparer.format_table, TABLES))
    connection.exec_driver_sql(f"LOCK TABLE {names} IN EXCLUSIVE MODE")
    # Each change to the default project is in `audit`, which then is not empty.
    connection.execute(delete(projects).where(projects.c.id == DEFAULT_PROJECT))
    full = [table.name for table in TABLES if connection.scalar(_count(table))]
    if full:
        raise CopyError(
            f"There are rows in {', '.join(full)} of "
            f"{database.describe(connection.engine)}. Name a "
            "database that nobody has used, made with `createdb`."
        )


def _copy_table(
    reading: Connection, writing: Connection, table: Table, total: int, progress: Progress
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
    # JSON as the text it is: unread, it is also unchanged.
    columns = [
        type_coerce(each, Text) if isinstance(each.type, JSON) else each for each in table.columns
    ]
    query = select(*columns).execution_options(yield_per=CHUNK_ROWS)
    yield from cast("Any", reading.execute(query)).partitions()


def _totals(connection: Connection) -> dict[str, tuple[int, ...]]:
    """Of each table: its rows, and the sum of each column of money or tokens."""
    return {
        table.name: tuple(
            map(
                int,
                connection.execute(
                    select(
                        func.count(),
                        *(
                            func.coalesce(func.sum(column), 0)
                            for column in table.columns
                            if column.name.endswith(("_nano_usd", "tokens"))
                        ),
                    ).select_from(table)
                ).one(),
            )
        )
        for table in TABLES
    }


def _count(table: Table) -> Any:
    return select(func.count()).select_from(table)
