"""Compares the roll-ups with the usage records, and repairs them.

It works on one day at a time, so that a running gateway never waits long. Days whose records were
pruned cannot be checked.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from sqlalchemy import (
    Connection,
    Engine,
    Select,
    case,
    delete,
    func,
    insert,
    literal,
    or_,
    select,
    text,
    union_all,
)

from embedway.ledger.buckets import DAY_MS
from embedway.ledger.reports import kept_from_ms
from embedway.ledger.retention import LOCK
from embedway.ledger.rollups import ROLLUPS, Rollup, integer_sum, rollup_query
from embedway.storage import database
from embedway.storage.tables import SUMS, usage


class RollupDifference(msgspec.Struct, frozen=True, kw_only=True):
    """A sum in a roll-up that differs from its usage records."""

    table: str
    key: dict[str, int | str]
    """The row's primary key."""
    column: str
    stored: int
    """The sum in the roll-up; 0 if the row is missing."""
    computed: int
    """The sum of the usage records; 0 if there are none."""


def recorded_days(engine: Engine) -> Iterator[int]:
    """Yield the start of each day that has usage and all of its records, in ms, oldest first."""
    with engine.connect() as connection:
        first_ms = -(-kept_from_ms(connection) // DAY_MS) * DAY_MS
    while (day_ms := _next_day(engine, first_ms)) is not None:
        yield day_ms
        first_ms = day_ms + DAY_MS


def find_differences(engine: Engine, day_ms: int) -> list[RollupDifference]:
    """Return the sums of a day that differ from its usage records."""
    with engine.connect() as connection:
        database.lift_time_limits(connection)
        # One statement sees the records and the sums of the same commits.
        return [
            difference
            for rollup in ROLLUPS
            for row in connection.execute(_comparison(rollup, day_ms))
            for difference in _row_differences(rollup, tuple(row))
        ]


def repair(engine: Engine, day_ms: int) -> None:
    """Rebuild the sums of a day from its usage records. Commits to the ledger wait meanwhile."""
    with database.locked_transaction(engine, lock=LOCK) as connection:
        database.lift_time_limits(connection)
        if kept_from_ms(connection) > day_ms:
            return  # pruned since
        if connection.dialect.name != "sqlite":
            # Waits for the present commits and holds back new ones. Reads go on.
            connection.execute(text('LOCK TABLE "usage" IN SHARE ROW EXCLUSIVE MODE'))
        for rollup in ROLLUPS:
            rebuild(connection, rollup, day_ms, day_ms + DAY_MS)


def rebuild(connection: Connection, rollup: Rollup, start_ms: int, end_ms: int) -> None:
    """Rebuild the sums from `start_ms` up to, but without, `end_ms`. Both are starts of days."""
    at_ms = rollup.table.c.at_ms
    connection.execute(delete(rollup.table).where(at_ms >= start_ms, at_ms < end_ms))
    sums = rollup_query(rollup).where(usage.c.at_ms >= start_ms, usage.c.at_ms < end_ms)
    connection.execute(insert(rollup.table).from_select([*rollup.key_columns, *SUMS], sums))


def _next_day(engine: Engine, from_ms: int) -> int | None:
    """Return the start of the first day from `from_ms` on that has records or sums."""
    tables = (usage, *(rollup.table for rollup in ROLLUPS))
    with engine.connect() as connection:
        firsts = [
            connection.scalar(select(func.min(each.c.at_ms)).where(each.c.at_ms >= from_ms))
            for each in tables
        ]
    return min((each - each % DAY_MS for each in firsts if each is not None), default=None)


def _comparison(rollup: Rollup, day_ms: int) -> Select[Any]:
    """Select the primary key, the stored sums and the computed sums of rows that differ."""
    end_ms = day_ms + DAY_MS
    stored = select(rollup.table).where(
        rollup.table.c.at_ms >= day_ms, rollup.table.c.at_ms < end_ms
    )
    computed = rollup_query(rollup).where(usage.c.at_ms >= day_ms, usage.c.at_ms < end_ms)
    sides = [
        select(
            *(rows.c[name] for name in (*rollup.key_columns, *SUMS)), literal(side).label("side")
        )
        for side, rows in enumerate((stored.subquery("stored"), computed.subquery("computed")))
    ]
    both = union_all(*sides).subquery("both")
    keys = [both.c[name] for name in rollup.key_columns]
    before, after = (
        [integer_sum(case((both.c.side == side, both.c[name]), else_=0)) for name in SUMS]
        for side in range(2)
    )
    differs = or_(*(one != other for one, other in zip(before, after, strict=True)))
    return select(*keys, *before, *after).group_by(*keys).having(differs).order_by(*keys)


def _row_differences(rollup: Rollup, row: Sequence[int | str]) -> Iterator[RollupDifference]:
    width = len(rollup.key_columns)
    key = dict(zip(rollup.key_columns, row[:width], strict=True))
    sums = [int(each) for each in row[width:]]
    for name, stored, computed in zip(SUMS, sums[: len(SUMS)], sums[len(SUMS) :], strict=True):
        if stored != computed:
            yield RollupDifference(
                table=rollup.table.name, key=key, column=name, stored=stored, computed=computed
            )
