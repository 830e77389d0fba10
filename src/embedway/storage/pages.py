"""Reads a list page by page. Each page starts after the last record of the previous one.

A record that exists all the time is read exactly once, whatever is added or changed between pages.
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
    """Return the next page of a list.

    Args:
        connection: A connection to the database.
        whole: The list without filters. It must contain `after`.
        filters: The conditions that the records of the page meet.
        type: The class of the records.
        by: The columns to sort by, which never change; the last is the id.
        after: The id of the last record on the previous page.
        limit: The most records on the page.
        descending: Whether to reverse the order.

    Raises:
        InvalidRequest: The list has no record `after`.
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
    """Check that the record `after` exists, in a list that is sorted by id and never shrinks.

    Raises:
        InvalidRequest: It does not exist.
    """
    if connection.execute(select(id).where(id == after)).first() is None:
        raise _not_in_list(after)


def _not_in_list(after: str) -> InvalidRequest:
    return InvalidRequest(
        f"'after' is {quote_value(after)}, which is not in this list. Send the 'last_id' of the "
        "previous page, or leave it out.",
        param="after",
    )
