"""What the ledger's lines are summed into: per hour and per day, with and without end users.

Owns the rules of these sums, in Python for lines that come in and in SQL for those that are kept.
Knows nothing of when either is used.
"""

from collections.abc import Iterable
from operator import add, attrgetter, neg
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Select, Table, case, func, select

from embedway.core.usage import ANSWERED, UsageLine
from embedway.storage.tables import (
    SUMS,
    usage,
    usage_days,
    usage_hours,
    usage_user_days,
    usage_user_hours,
)

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS

Key = tuple[int | str, ...]
"""The primary key of a row: when its time begins, and what it is of."""
Sums = tuple[int, ...]
"""In the order of `SUMS`."""


class Rollup(msgspec.Struct, frozen=True, kw_only=True):
    """One table of sums."""

    table: Table
    width_ms: int
    end_users: bool = False

    @property
    def by(self) -> tuple[str, ...]:
        """The columns of its primary key."""
        return tuple(str(column.name) for column in self.table.primary_key)


ROLLUPS = (
    Rollup(table=usage_hours, width_ms=HOUR_MS),
    Rollup(table=usage_days, width_ms=DAY_MS),
    Rollup(table=usage_user_hours, width_ms=HOUR_MS, end_users=True),
    Rollup(table=usage_user_days, width_ms=DAY_MS, end_users=True),
)

_of = attrgetter("project_id", "key_id", "model", "provider")


def added(
    lines: Iterable[UsageLine], *, removed: Iterable[UsageLine] = ()
) -> list[list[tuple[Key, Sums]]]:
    """What `lines` add to each of `ROLLUPS`, in the order of their primary keys.

    That two processes add to the same rows in the same order is why neither waits for the other
    for good.

    Args:
        lines: New lines.
        removed: Lines that were summed before and are deleted in the same commit.
    """
    hours: dict[Key, Sums] = {}
    for line in lines:
        _add(hours, _hour(line), _sums(line))
    for line in removed:
        _add(hours, _hour(line), tuple(map(neg, _sums(line))))
    return [sorted(_merged(hours, each).items()) for each in ROLLUPS]


def charged(lines: Iterable[UsageLine]) -> int:
    """What `lines` charge, in nano-dollars."""
    return sum(line.cost_nano_usd for line in lines if line.status == ANSWERED)


def summed(rollup: Rollup) -> Select[Any]:
    """What the rows of `rollup` should be, from the lines; to be bounded by `usage.c.at_ms`."""
    begins = (usage.c.at_ms - usage.c.at_ms % rollup.width_ms).label("at_ms")
    groups = [begins, *(usage.c[name] for name in rollup.by[1:])]
    sums = (func.sum(value).label(name) for name, value in zip(SUMS, _columns(), strict=True))
    return select(*groups, *sums).group_by(*groups)


def _merged(hours: dict[Key, Sums], rollup: Rollup) -> dict[Key, Sums]:
    merged: dict[Key, Sums] = {}
    for (hour, *of, end_user), sums in hours.items():
        begins = int(hour) - int(hour) % rollup.width_ms
        _add(merged, (begins, *of, end_user) if rollup.end_users else (begins, *of), sums)
    return merged


def _hour(line: UsageLine) -> Key:
    hour = line.at_ms - line.at_ms % HOUR_MS
    return (hour, *_of(line), line.end_user or "")


def _add(into: dict[Key, Sums], key: Key, sums: Sums) -> None:
    before = into.get(key)
    into[key] = tuple(map(add, before, sums)) if before else sums


def _sums(line: UsageLine) -> Sums:
    # A probe of a deployment, of no key, is nobody's request.
    asked = line.line == 0 and line.key_id != ""
    if line.status != ANSWERED:
        return (
            0, int(asked), 0, 0, 0, 0, 0, 0,
            line.upstream_cost_nano_usd, line.calls, line.failed_calls,
        )  # fmt: skip
    tokens = line.tokens
    return (
        int(asked), 0, line.items, tokens, line.cached_tokens,
        tokens if line.estimated else 0, 0 if line.priced else tokens, line.cost_nano_usd,
        line.upstream_cost_nano_usd, line.calls, line.failed_calls,
    )  # fmt: skip


def _columns() -> list[ColumnElement[int]]:
    """As `_sums`, of the lines in the database."""
    line = usage.c
    answered = line.status == ANSWERED
    asked = (line.line == 0) & (line.key_id != "")
    where = (
        (asked & answered, 1),
        (asked & ~answered, 1),
        (answered, line["items"]),
        (answered, line.tokens),
        (answered, line.cached_tokens),
        (answered & line.estimated, line.tokens),
        (answered & ~line.priced, line.tokens),
        (answered, line.cost_nano_usd),
    )
    counted = [case((which, value), else_=0) for which, value in where]
    return [*counted, line.upstream_cost_nano_usd, line.calls, line.failed_calls]
