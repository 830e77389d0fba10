"""What the ledger's lines are summed into: per hour and per day, with and without end users.

Owns the rules of these sums, written once for lines that come in and for those in the database.
"""

from collections.abc import Callable, Iterable, Sequence
from operator import add, attrgetter, neg
from types import SimpleNamespace
from typing import Any

import msgspec
from sqlalchemy import BigInteger, ColumnElement, Select, Table, case, cast, func, select

from embedway.core.usage import ANSWERED, UsageRecord
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
RollupSums = tuple[int, ...]
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


def rollup_rows(
    lines: Iterable[UsageRecord], *, removed: Iterable[UsageRecord] = ()
) -> list[list[tuple[Key, RollupSums]]]:
    """What `lines` add to each of `ROLLUPS`, in the order of their primary keys.

    That two processes add to the same rows in the same order is why neither waits for the other
    for good.

    Args:
        lines: New lines.
        removed: Lines that were summed before and are deleted in the same commit.
    """
    hours: dict[Key, RollupSums] = {}
    for line in lines:
        _add(hours, _hour(line), _sums(line, _choose))
    for line in removed:
        _add(hours, _hour(line), tuple(map(neg, _sums(line, _choose))))
    return [sorted(_merged(hours, each).items()) for each in ROLLUPS]


def total_cost(lines: Iterable[UsageRecord]) -> int:
    """What `lines` charge, in nano-dollars."""
    return sum(line.cost_nano_usd for line in lines if line.status == ANSWERED)


def rollup_query(rollup: Rollup) -> Select[Any]:
    """What the rows of `rollup` should be, from the lines; to be bounded by `usage.c.at_ms`."""
    begins = (usage.c.at_ms - usage.c.at_ms % rollup.width_ms).label("at_ms")
    groups = [begins, *(usage.c[name] for name in rollup.by[1:])]
    return select(*groups, *sums_of(usage)).group_by(*groups)


def sums_of(table: Table) -> list[ColumnElement[int]]:
    """The `SUMS` over rows of `usage` or of a roll-up, so that both say the same."""
    values = _IN_SQL if table is usage else [table.c[name] for name in SUMS]
    return [integer_sum(value).label(name) for name, value in zip(SUMS, values, strict=True)]


def integer_sum(value: ColumnElement[int]) -> ColumnElement[int]:
    """The sum of `value`, which Postgres alone would make a decimal."""
    return cast(func.sum(value), BigInteger)


def _merged(hours: dict[Key, RollupSums], rollup: Rollup) -> dict[Key, RollupSums]:
    merged: dict[Key, RollupSums] = {}
    for (hour, *of, end_user), sums in hours.items():
        begins = int(hour) - int(hour) % rollup.width_ms
        _add(merged, (begins, *of, end_user) if rollup.end_users else (begins, *of), sums)
    return merged


def _hour(line: UsageRecord) -> Key:
    hour = line.at_ms - line.at_ms % HOUR_MS
    return (hour, *_of(line), line.end_user or "")


def _add(into: dict[Key, RollupSums], key: Key, sums: RollupSums) -> None:
    before = into.get(key)
    into[key] = tuple(map(add, before, sums)) if before else sums


def _sums(line: Any, choose: Callable[[Any, Any, Any], Any]) -> tuple[Any, ...]:
    """What a line adds to each of `SUMS`: numbers, or SQL for a line of columns.

    Args:
        line: The line.
        choose: Returns its second argument if the first is true, else its third.
    """

    def if_answered(value: Any) -> Any:
        return choose(line.status == ANSWERED, value, 0)

    # A probe of a deployment has no key, and is nobody's request.
    requests = choose((line.line == 0) & (line.key_id != ""), 1, 0)
    return (
        if_answered(requests),
        choose(line.status == ANSWERED, 0, requests),
        if_answered(line.items),
        if_answered(line.tokens),
        if_answered(line.cached_tokens),
        if_answered(choose(line.estimated, line.tokens, 0)),
        if_answered(choose(line.priced, 0, line.tokens)),
        if_answered(line.cost_nano_usd),
        line.upstream_cost_nano_usd,
        line.calls,
        line.failed_calls,
    )


def _choose(condition: object, value: int, other: int) -> int:
    return value if condition else other


# A namespace, for `usage.c.items` is a method.
_IN_SQL: Sequence[ColumnElement[int]] = _sums(
    SimpleNamespace(**{column.name: column for column in usage.c}),
    lambda condition, value, other: case((condition, value), else_=other),
)
