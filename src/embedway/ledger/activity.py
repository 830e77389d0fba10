"""Reads what happened in the last seconds: usage, latencies and refused requests.

It reads at most `MAX_RECORDS` usage records by an index on time, so it takes a fraction of a second
however large the ledger is and however much traffic there is.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import (
    ColumnElement,
    Connection,
    Integer,
    case,
    func,
    literal_column,
    null,
    select,
)

from embedway.core.refusals import QUARTER_MS
from embedway.core.usage import ANSWERED
from embedway.ledger.buckets import TimeSpan
from embedway.ledger.query import Column, UsageTotals
from embedway.ledger.rollups import integer_sum, sums_of
from embedway.storage.tables import SUMS, refusals, usage

MAX_RECORDS = 20_000
"""The most usage records to read. If more are recent, the time covered is shorter."""
MAX_GROUPS = 100
"""The most groups, and the most kinds of refusals, in an answer: those with the most requests."""
PERCENTS = (50, 99)

# By number, because Postgres takes two expressions with bound values for different ones.
_FIRST_COLUMN = literal_column("1", Integer)


class LatencyPercentiles(msgspec.Struct, frozen=True):
    """The latencies in microseconds that 50% and 99% of answered requests did not exceed."""

    p50_us: int
    p99_us: int


class ActivityGroup(msgspec.Struct, frozen=True):
    """The recent usage of one model, provider, project, key or end user, or of all."""

    value: str | None
    """The id or name that the group shares; None for requests without one, or for all."""
    totals: UsageTotals
    latency: LatencyPercentiles | None
    """None if no request was answered."""


class RecentRefusals(msgspec.Struct, frozen=True):
    """The number of refused requests of one key for one reason."""

    project_id: str
    """Empty, like `key_id`, if the request was refused before its key was recognised."""
    key_id: str
    reason: str
    requests: int


class Activity(msgspec.Struct, frozen=True, kw_only=True):
    """What happened in the last seconds, on all replicas."""

    span: TimeSpan
    """The time in which the requests arrived. It is shorter than asked if there were too many."""
    all: ActivityGroup
    groups: Sequence[ActivityGroup]
    """At most `MAX_GROUPS` groups, most requests first."""
    has_more: bool
    """Whether there are more groups."""
    refusals_since_ms: int
    """Since when refusals are counted: the start of the quarter hour in which `span` starts."""
    refusals: Sequence[RecentRefusals]
    """At most `MAX_GROUPS` of them, most requests first."""


def read_activity(connection: Connection, by: Column, *, since_ms: int, now_ms: int) -> Activity:
    """Read what happened between two times, grouped by a column of usage records.

    Raises:
        SQLAlchemyError: The database cannot be read.
    """
    start_ms = _start_ms(connection, since_ms)
    group = func.nullif(usage.c[by], "")
    latencies = _read_latencies(connection, group, start_ms)
    sums = select(group, *sums_of(usage)).where(usage.c.at_ms >= start_ms).group_by(_FIRST_COLUMN)
    groups = [
        ActivityGroup(value, UsageTotals(*totals), latencies.get(value))
        for value, *totals in connection.execute(sums)
    ]
    groups.sort(key=lambda each: -each.totals.requests - each.totals.errors)
    columns = zip(*(msgspec.structs.astuple(each.totals) for each in groups), strict=True)
    totals = UsageTotals(*map(sum, columns)) if groups else UsageTotals(*[0] * len(SUMS))
    all_latencies = _read_latencies(connection, null(), start_ms)
    refusals_since_ms = since_ms - since_ms % QUARTER_MS
    return Activity(
        span=TimeSpan(start_ms, now_ms),
        all=ActivityGroup(None, totals, all_latencies.get(None)),
        groups=groups[:MAX_GROUPS],
        has_more=len(groups) > MAX_GROUPS,
        refusals_since_ms=refusals_since_ms,
        refusals=_read_refusals(connection, refusals_since_ms),
    )


def _start_ms(connection: Connection, since_ms: int) -> int:
    """Return `since_ms`, or a later time from which there are only `MAX_RECORDS` records."""
    too_early = (
        select(usage.c.at_ms)
        .where(usage.c.at_ms >= since_ms)
        .order_by(usage.c.at_ms.desc())
        .offset(MAX_RECORDS)
        .limit(1)
    )
    found_ms = connection.scalar(too_early)
    return since_ms if found_ms is None else found_ms + 1


def _read_latencies(
    connection: Connection, group: ColumnElement[Any], start_ms: int
) -> dict[str | None, LatencyPercentiles]:
    """Return the percentiles of each group: the least latency that so many do not exceed."""
    latency_us = usage.c.latency_us
    ranked = (
        select(
            group.label("value"),
            latency_us,
            func.row_number().over(partition_by=group, order_by=latency_us).label("rank"),
            func.count().over(partition_by=group).label("count"),
        )
        .where(usage.c.at_ms >= start_ms)
        # A probe has no key and is not a request.
        .where(usage.c.status == ANSWERED, usage.c.line == 0, usage.c.key_id != "")
        .subquery()
    )
    percentiles = (
        func.min(case((ranked.c.rank * 100 >= ranked.c.count * percent, ranked.c.latency_us)))
        for percent in PERCENTS
    )
    rows = connection.execute(select(ranked.c.value, *percentiles).group_by(ranked.c.value))
    return {value: LatencyPercentiles(*found) for value, *found in rows}


def _read_refusals(connection: Connection, since_ms: int) -> list[RecentRefusals]:
    requests = integer_sum(refusals.c.requests)
    group = refusals.c.project_id, refusals.c.key_id, refusals.c.reason
    query = (
        select(*group, requests)
        .where(refusals.c.at_ms >= since_ms)
        .group_by(*group)
        .order_by(requests.desc(), *group)
        .limit(MAX_GROUPS)
    )
    return [RecentRefusals(*row) for row in connection.execute(query)]
