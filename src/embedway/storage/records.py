"""Frozen structs to rows of the table with their fields, and back."""

from collections.abc import Mapping
from typing import Any, TypeVar, get_type_hints

import msgspec

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
