"""Stores frozen structs as table rows with one column per field."""

from collections.abc import Mapping
from typing import Any, ClassVar, Generic, TypeVar, get_type_hints

import msgspec
from sqlalchemy import ColumnElement, Connection, Table, delete, insert, select, update

Record = TypeVar("Record", bound=msgspec.Struct)


def to_row(record: msgspec.Struct) -> dict[str, Any]:
    """Return the columns of `record`. Nested values become JSON."""
    return {
        name: value if isinstance(value, bytes) else msgspec.to_builtins(value)
        for name, value in msgspec.structs.asdict(record).items()
    }


def from_row(row: Mapping[Any, Any], type: type[Record]) -> Record:
    """Return the record of a row, which may have additional columns."""
    fields = {name: row[name] for name in get_type_hints(type)}
    return msgspec.convert(fields, type, builtin_types=(bytes,))


class Records(Generic[Record]):
    """The records of one table in one transaction. An id is the values of the primary key."""

    table: ClassVar[Table]
    type: ClassVar[Any]

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, record: Record) -> None:
        """Store a new record."""
        self._connection.execute(insert(self.table).values(to_row(record)))

    def get(self, *id: str) -> Record | None:
        """Return the record with this id, in any state, or None."""
        return self.find(*(column == value for column, value in zip(self._key, id, strict=True)))

    def find(self, *where: ColumnElement[bool]) -> Record | None:
        """Return the first record that meets all conditions, or None."""
        found = self._connection.execute(select(self.table).where(*where)).mappings().first()
        return from_row(found, self.type) if found else None

    def replace(self, record: Record) -> None:
        """Store the new values of a record."""
        self._connection.execute(update(self.table).where(*self._is(record)).values(to_row(record)))

    def remove(self, record: Record) -> None:
        """Delete a record."""
        self._connection.execute(delete(self.table).where(*self._is(record)))

    @property
    def _key(self) -> tuple[ColumnElement[Any], ...]:
        return tuple(self.table.primary_key)

    def _is(self, record: Record) -> tuple[ColumnElement[bool], ...]:
        return tuple(each == getattr(record, each.key or "") for each in self._key)
