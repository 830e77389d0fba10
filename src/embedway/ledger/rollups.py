"""Sums up usage records by hour and by day, with and without end users.

The rules of the sums are written once, for new records and for those in the database.
"""

from collections.abc import Callable, Iterable, Sequence
from operator import add, attrgetter, neg
from types import SimpleNamespace
from typing import Any

import msgspec
from sqlalchemy import BigInteger, ColumnElement, Select, Table, case, cast, func, select

from embedway.core.usage import ANSWERED, UsageRecord
from embedway.ledger.buckets import DAY_MS, HOUR_MS
from embedway.storage.tables import (
    SUMS,
    usage,
    usage_days,
    usage_hours,
    usage_user_days,
    usage_user_hours,
)

RollupKey = tuple[int | str, ...]
"""The primary key of a row: the start of its hour or day in ms, then the values it groups by."""
RollupSums = tuple[int, ...]
"""The values of `SUMS`, in that order."""


class Rollup(msgspec.Struct, frozen=True, kw_only=True):
    """One table of sums, by hour or by day."""

    table: Table
    width_ms: int
    has_end_users: bool = False

    @property
    def key_columns(self) -> tuple[str, ...]:
        """The columns of its primary key."""
        return tuple(str(column.name) for column in self.table.primary_key)


ROLLUPS = (
    Rollup(table=usage_hours, width_ms=HOUR_MS),
    Rollup(table=usage_days, width_ms=DAY_MS),
    Rollup(table=usage_user_hours, width_ms=HOUR_MS, has_end_users=True),
    Rollup(table=usage_user_days, width_ms=DAY_MS, has_end_users=True),
)

_group_values = attrgetter("project_id", "key_id", "model", "provider")


def rollup_rows(
    records: Iterable[UsageRecord], *, deleted_records: Iterable[UsageRecord] = ()
) -> list[list[tuple[RollupKey, RollupSums]]]:
    """Return what new records add to each of `ROLLUPS`, sorted by primary key to avoid deadlocks.

    `deleted_records` are in the sums and will be deleted in the same commit.
    """
    hours: dict[RollupKey, RollupSums] = {}
    for record in records:
        _add(hours, _hour(record), _sums(record, _choose))
    for record in deleted_records:
        _add(hours, _hour(record), tuple(map(neg, _sums(record, _choose))))
    return [sorted(_merged(hours, each).items()) for each in ROLLUPS]


def total_cost(records: Iterable[UsageRecord]) -> int:
    """Return what `records` charge, in nano-USD."""
    return sum(each.cost_nano_usd for each in records if each.status == ANSWERED)


def rollup_query(rollup: Rollup) -> Select[Any]:
    """Select what the rows of `rollup` should be. Bound it by `usage.c.at_ms`."""
    start_ms = (usage.c.at_ms - usage.c.at_ms % rollup.width_ms).label("at_ms")
    groups = [start_ms, *(usage.c[name] for name in rollup.key_columns[1:])]
    return select(*groups, *sums_of(usage)).group_by(*groups)


def sums_of(table: Table) -> list[ColumnElement[int]]:
    """Return SQL for the `SUMS` over rows of `usage` or of a roll-up."""
    values = _IN_SQL if table is usage else [table.c[name] for name in SUMS]
    return [integer_sum(value).label(name) for name, value in zip(SUMS, values, strict=True)]


def integer_sum(value: ColumnElement[int]) -> ColumnElement[int]:
    """Return SQL for the sum of `value` as an integer, because Postgres would return a decimal."""
    return cast(func.sum(value), BigInteger)


def _merged(hours: dict[RollupKey, RollupSums], rollup: Rollup) -> dict[RollupKey, RollupSums]:
    merged: dict[RollupKey, RollupSums] = {}
    for (hour, *values, end_user), sums in hours.items():
        start_ms = int(hour) - int(hour) % rollup.width_ms
        key = (start_ms, *values, end_user) if rollup.has_end_users else (start_ms, *values)
        _add(merged, key, sums)
    return merged


def _hour(record: UsageRecord) -> RollupKey:
    hour = record.at_ms - record.at_ms % HOUR_MS
    return (hour, *_group_values(record), record.end_user or "")


def _add(into: dict[RollupKey, RollupSums], key: RollupKey, sums: RollupSums) -> None:
    before = into.get(key)
    into[key] = tuple(map(add, before, sums)) if before else sums


def _sums(record: Any, choose: Callable[[Any, Any, Any], Any]) -> tuple[Any, ...]:
    """Return what a record adds to each of `SUMS`: numbers, or SQL if its fields are columns.

    Args:
        record: A usage record, or a namespace of columns.
        choose: Returns its second argument if the first is true, else its third.
    """

    def if_answered(value: Any) -> Any:
        return choose(record.status == ANSWERED, value, 0)

    # A probe has no key and is not a request.
    requests = choose((record.line == 0) & (record.key_id != ""), 1, 0)
    return (
        if_answered(requests),
        choose(record.status == ANSWERED, 0, requests),
        if_answered(record.items),
        if_answered(record.tokens),
        if_answered(record.cached_tokens),
        if_answered(choose(record.estimated, record.tokens, 0)),
        if_answered(choose(record.priced, 0, record.tokens)),
        if_answered(record.cost_nano_usd),
        record.upstream_cost_nano_usd,
        record.calls,
        record.failed_calls,
    )


def _choose(condition: object, value: int, other: int) -> int:
    return value if condition else other


# A namespace, because `usage.c.items` is a method.
_IN_SQL: Sequence[ColumnElement[int]] = _sums(
    SimpleNamespace(**{column.name: column for column in usage.c}),
    lambda condition, value, other: case((condition, value), else_=other),
)
