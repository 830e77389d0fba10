"""Reads a list in parts, each after the last of the one before.

A list read so has each item at most once, and each that was there all the while exactly once,
whatever is added or changed between two parts.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec
from sqlalchemy import Column, ColumnElement, Connection, Row, Select, select, tuple_

from embedway.core.errors import InvalidRequest, quote_value
from embedway.core.page import Page
from embedway.storage import records

Record = TypeVar("Record", bound=msgspec.Struct)


def read_page(
    connection: Connection,
    whole: Select[Any],
    *filters: ColumnElement[bool],
    type: type[Record],
    by: Sequence[Column[Any]],
    after: str | None,
    limit: int,
    descending: bool = False,
) -> Page[Record]:
    """The next part of a list.

    Args:
        connection: To the database.
        whole: What `after` must be of.
        filters: What to leave out of it.
        type: Of the records.
        by: The columns it is sorted by, which never change; the last is the id.
        after: The id of the last record of the part before.
        limit: At most so many.
        descending: The other way round.

    Raises:
        InvalidRequest: There is no record `after`.
    """
    query = whole.where(*filters)
    if after is not None:
        place = _place(connection, whole, by, after)
        order = tuple_(*by)
        query = query.where(order < place if descending else order > place)
    query = query.order_by(*(each.desc() if descending else each for each in by))
    rows = connection.execute(query.limit(limit + 1)).mappings().all()
    return Page(tuple(records.from_row(row, type) for row in rows[:limit]), more=len(rows) > limit)


def _place(
    connection: Connection, whole: Select[Any], by: Sequence[Column[Any]], after: str
) -> Row[Any] | tuple[str]:
    if len(by) == 1:
        return (after,)
    place = connection.execute(whole.with_only_columns(*by).where(by[-1] == after)).first()
    if place is None:
        raise _not_in_list(after)
    return place


def check_place(connection: Connection, id: Column[Any], after: str) -> None:
    """Checks that the record `after` exists, for a list that is sorted by ids that never go.

    Raises:
        InvalidRequest: It does not.
    """
    if connection.execute(select(id).where(id == after)).first() is None:
        raise _not_in_list(after)


def _not_in_list(after: str) -> InvalidRequest:
    return InvalidRequest(
        f"'after' is {quote_value(after)}, which is not in this list. Send the "
        "'last_id' of the page "
        "before, or leave it out.",
        param="after",
    )
