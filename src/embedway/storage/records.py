"""Frozen structs to rows of the table with their fields, and back."""

from collections.abc import Mapping
from typing import Any, ClassVar, Generic, TypeVar, get_type_hints

import msgspec
from sqlalchemy import ColumnElement, Connection, Table, insert, select, update

Record = TypeVar("Record", bound=msgspec.Struct)


def row(record: msgspec.Struct) -> dict[str, Any]:
    """The columns of `record`; what is nested is as it is in JSON."""
    return {
        name: value if isinstance(value, bytes) else msgspec.to_builtins(value)
        for name, value in msgspec.structs.asdict(record).items()
    }


def read(row: Mapping[Any, Any], type: type[Record]) -> Record:
    """The record of a row, which may have more columns than it has fields."""
    fields = {name: row[name] for name in get_type_hints(type)}
    return msgspec.convert(fields, type, builtin_types=(bytes,))


class Records(Generic[Record]):
    """The records of one table, in one transaction."""

    table: ClassVar[Table]
    type: ClassVar[Any]

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, record: Record) -> None:
        """Store a new record."""
        self._connection.execute(insert(self.table).values(row(record)))

    def find(self, *where: ColumnElement[bool]) -> Record | None:
        """Return the record that matches `where`, if there is one."""
        found = self._connection.execute(select(self.table).where(*where)).mappings().first()
        return read(found, self.type) if found else None

    def replace(self, record: Record) -> None:
        """Store the new state of a record."""
        values = row(record)
        same = (column == values[column.name] for column in self.table.primary_key)
        self._connection.execute(update(self.table).where(*same).values(values))
