"""Compares what the ledger's lines are summed into with the lines, and mends it.

A day at a time, so that a running gateway never waits long. Only of days whose lines are kept.
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

from embedway.ledger.reports import kept_from_ms
from embedway.ledger.retention import LOCK
from embedway.ledger.rollups import DAY_MS, ROLLUPS, Rollup, integer_sum, rollup_query
from embedway.storage import database
from embedway.storage.tables import SUMS, usage


class RollupDifference(msgspec.Struct, frozen=True, kw_only=True):
    """A sum that is not what its lines say."""

    table: str
    of: dict[str, int | str]
    """The row's primary key."""
    sum: str
    kept: int
    """Of a row that is missing 0."""
    lines: int
    """What the lines say; 0 without any."""


def recorded_days(engine: Engine) -> Iterator[int]:
    """When each day begins that anything is kept of and whose lines are all there, oldest first."""
    with engine.connect() as connection:
        first_ms = -(-kept_from_ms(connection) // DAY_MS) * DAY_MS
    while (day := _next(engine, first_ms)) is not None:
        yield day
        first_ms = day + DAY_MS


def find_differences(engine: Engine, day_ms: int) -> list[RollupDifference]:
    """The sums of that day that differ from its lines."""
    with engine.connect() as connection:
        database.lift_time_limits(connection)
        # Each is one statement, and so sees lines and sums of the same commits.
        return [
            difference
            for rollup in ROLLUPS
            for row in connection.execute(_compared(rollup, day_ms))
            for difference in _told(rollup, tuple(row))
        ]


def repair(engine: Engine, day_ms: int) -> None:
    """Makes the sums of that day anew from its lines; nothing is recorded meanwhile."""
    with database.locked_transaction(engine, lock=LOCK) as connection:
        database.lift_time_limits(connection)
        if kept_from_ms(connection) > day_ms:
            return  # pruned since
        if connection.dialect.name != "sqlite":
            # Waits for commits under way, and lets no other begin; reading goes on.
            connection.execute(text('LOCK TABLE "usage" IN SHARE ROW EXCLUSIVE MODE'))
        for rollup in ROLLUPS:
            rebuild(connection, rollup, day_ms, day_ms + DAY_MS)


def rebuild(connection: Connection, rollup: Rollup, start_ms: int, end_ms: int) -> None:
    """Makes the sums from `start_ms` up to but without `end_ms`, where days begin, from lines."""
    at_ms = rollup.table.c.at_ms
    connection.execute(delete(rollup.table).where(at_ms >= start_ms, at_ms < end_ms))
    of_lines = rollup_query(rollup).where(usage.c.at_ms >= start_ms, usage.c.at_ms < end_ms)
    connection.execute(insert(rollup.table).from_select([*rollup.by, *SUMS], of_lines))


def _next(engine: Engine, from_ms: int) -> int | None:
    """The first day from that time on that has lines or sums."""
    tables = (usage, *(rollup.table for rollup in ROLLUPS))
    with engine.connect() as connection:
        firsts = [
            connection.scalar(select(func.min(each.c.at_ms)).where(each.c.at_ms >= from_ms))
            for each in tables
        ]
    found = [each - each % DAY_MS for each in firsts if each is not None]
    return min(found, default=None)


def _compared(rollup: Rollup, day_ms: int) -> Select[Any]:
    """Rows of the primary key, what is kept and what the lines say, where these differ."""
    end_ms = day_ms + DAY_MS
    kept = select(rollup.table).where(rollup.table.c.at_ms >= day_ms, rollup.table.c.at_ms < end_ms)
    lines = rollup_query(rollup).where(usage.c.at_ms >= day_ms, usage.c.at_ms < end_ms)
    sides = [
        select(*(rows.c[name] for name in (*rollup.by, *SUMS)), literal(side).label("side"))
        for side, rows in enumerate((kept.subquery("kept"), lines.subquery("of_lines")))
    ]
    both = union_all(*sides).subquery("both")
    keys = [both.c[name] for name in rollup.by]
    before, after = (
        [integer_sum(case((both.c.side == side, both.c[name]), else_=0)) for name in SUMS]
        for side in range(2)
    )
    differs = or_(*(one != other for one, other in zip(before, after, strict=True)))
    return select(*keys, *before, *after).group_by(*keys).having(differs).order_by(*keys)


def _told(rollup: Rollup, row: Sequence[int | str]) -> Iterator[RollupDifference]:
    width = len(rollup.by)
    of = dict(zip(rollup.by, row[:width], strict=True))
    sums = [int(each) for each in row[width:]]
    for name, kept, lines in zip(SUMS, sums[: len(SUMS)], sums[len(SUMS) :], strict=True):
        if kept != lines:
            yield RollupDifference(table=rollup.table.name, of=of, sum=name, kept=kept, lines=lines)
