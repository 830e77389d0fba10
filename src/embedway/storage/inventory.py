"""Measures the database: its size, and the approximate number of rows in each table."""

from pathlib import Path

import msgspec
from sqlalchemy import Connection, Engine, Table, func, inspect, select

from embedway.storage import database
from embedway.storage.tables import metadata

EXACT_ROWS = 10_000
"""Tables that Postgres estimates at fewer rows than this are counted."""


class Inventory(msgspec.Struct, frozen=True):
    """The size of the database."""

    size_bytes: int
    rows: dict[str, int]
    """The number of rows in each table that exists, estimated if it is large."""


def take_inventory(engine: Engine) -> Inventory:
    """Measure the database, whatever its revision."""
    with engine.connect() as connection:
        database.lift_time_limits(connection)
        existing = set(inspect(connection).get_table_names())
        rows = {
            name: _rows(connection, table)
            for name, table in metadata.tables.items()
            if name in existing
        }
        return Inventory(size_bytes=_size_bytes(connection), rows=rows)


def _rows(connection: Connection, table: Table) -> int:
    if connection.dialect.name == "postgresql":
        # An estimate, because counting reads the whole table.
        estimate = connection.exec_driver_sql(
            "SELECT reltuples::bigint FROM pg_class WHERE oid = to_regclass(%s)",
            (f'"{table.name}"',),
        ).scalar()
        if estimate and estimate >= EXACT_ROWS:
            return estimate
    return connection.scalar(select(func.count()).select_from(table)) or 0


def _size_bytes(connection: Connection) -> int:
    if connection.dialect.name == "postgresql":
        query = "SELECT pg_database_size(current_database())"
        return connection.exec_driver_sql(query).scalar() or 0
    file = Path(connection.engine.url.database or "")
    files = (file, file.with_name(f"{file.name}-wal"))
    return sum(each.stat().st_size for each in files if each.exists())
