"""Reads usage: sums by time and group, and single records.

It reads roll-ups where they can answer, and records elsewhere. Values from callers are bound, never
part of the SQL.
"""

import time
from collections.abc import Collection, Generator, Iterator, Sequence
from contextlib import contextmanager
from operator import add
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Integer,
    Select,
    Table,
    Text,
    cast,
    func,
    literal_column,
    null,
    select,
)
from sqlalchemy.exc import OperationalError

from embedway.core.errors import InvalidRequest
from embedway.core.refusals import QUARTER_MS
from embedway.ledger.activity import Activity, read_activity
from embedway.ledger.buckets import (
    DAY_MS,
    BucketRun,
    Source,
    TimeSpan,
    plan_reads,
    split_span,
    to_local,
)
from embedway.ledger.query import (
    METADATA,
    UTC,
    Column,
    Dimension,
    EntityNames,
    RefusalGroup,
    UsageFilter,
    UsageGroup,
    UsageQuery,
    UsageTotals,
)
from embedway.ledger.rollups import integer_sum, sums_of
from embedway.storage import database, tables
from embedway.storage.tables import (
    installation,
    refusals,
    usage,
    usage_days,
    usage_hours,
    usage_user_days,
    usage_user_hours,
)

RECORDS_FROM = "lines_from_ms"
"""The row of `installation` with the time since which records are kept; missing if all are."""
RECORDS_PER_BATCH = 10_000
IDS_PER_QUERY = 1_000
QUERY_CANCELED = "57014"
"""The SQLSTATE of a statement that took too long."""
TIME_LIMIT_S = 5.0
"""The longest that a report over HTTP may keep the database busy."""

_TABLES: dict[Source, Table] = {"days": usage_days, "hours": usage_hours, "records": usage}
_USER_TABLES: dict[Source, Table] = {
    "days": usage_user_days,
    "hours": usage_user_hours,
    "records": usage,
}
_SQLITE = "sqlite"
_SQLITE_STEPS = 10_000
"""The steps between two looks at the clock. They take less than a millisecond."""

Group = tuple[str | None, ...]


class UsageReports:
    """Reports on the committed usage."""

    def __init__(self, engine: Engine, *, time_limit_s: float = TIME_LIMIT_S) -> None:
        """Set the longest that a report with `max_results` may take."""
        self._engine = engine
        self._time_limit_s = time_limit_s

    def sum_usage(
        self,
        query: UsageQuery,
        spans: Sequence[TimeSpan] | None = None,
        *,
        since_ms: int | None = None,
        until_ms: int | None = None,
        max_results: int | None = None,
    ) -> list[UsageGroup]:
        """Sum up the usage of each group in each bucket, sorted by bucket and group.

        Groups without usage are left out.

        Args:
            query: What to sum up.
            spans: Buckets, in order and without gaps; None for those of `query` between two times.
            since_ms: The first of these times; None for the first usage.
            until_ms: The second of these times; None for the last usage.
            max_results: The most results; None for any number, in any time.

        Raises:
            InvalidRequest: There are more results, it takes too long, or it needs records that
                were pruned.
            SQLAlchemyError: The database cannot be read.
        """
        with self._reading(is_limited=max_results is not None) as connection:
            extent = _extent(connection)
            buckets = _buckets(query, extent, since_ms, until_ms) if spans is None else spans
            runs = plan_reads((each.clip_to(extent) for each in buckets), query.sources)
            if starts := [each.span.start_ms for each in runs if each.source == "records"]:
                _check_kept(connection, min(starts))
            sources = _USER_TABLES if "end_user" in query.dimensions else _TABLES
            reads = [(sources[run.source], run) for run in runs]
            return [
                UsageGroup(buckets[bucket], group, UsageTotals(*sums))
                for bucket, group, sums in _sum_up(connection, query, reads, max_results)
            ]

    def count_refusals(
        self,
        query: UsageQuery,
        spans: Sequence[TimeSpan] | None = None,
        *,
        since_ms: int | None = None,
        until_ms: int | None = None,
        max_results: int | None = None,
    ) -> list[RefusalGroup]:
        """Count the refused requests of each group in each bucket, like `sum_usage`.

        They are stored by quarter hour, which counts in the bucket that it begins in. `query`
        groups and filters by `REFUSAL_DIMENSIONS` only.

        Raises:
            InvalidRequest: There are more results than `max_results`, or it takes too long.
            SQLAlchemyError: The database cannot be read.
        """
        with self._reading(is_limited=max_results is not None) as connection:
            extent = _extent(connection, refusals, QUARTER_MS)
            buckets = _buckets(query, extent, since_ms, until_ms) if spans is None else spans
            runs = plan_reads((each.clip_to(extent) for each in buckets), ("records",))
            reads = [(refusals, run) for run in runs]
            return [
                RefusalGroup(buckets[bucket], group, *sums)
                for bucket, group, sums in _sum_up(connection, query, reads, max_results)
            ]

    def read_activity(self, by: Column, *, since_ms: int, now_ms: int) -> Activity:
        """Read what happened since `since_ms`; `read_activity` of `activity.py` says how.

        Raises:
            InvalidRequest: It takes too long.
            SQLAlchemyError: The database cannot be read.
        """
        with self._reading(is_limited=True) as connection:
            return read_activity(connection, by, since_ms=since_ms, now_ms=now_ms)

    def read_records(
        self,
        filters: Sequence[UsageFilter] = (),
        *,
        since_ms: int | None = None,
        until_ms: int | None = None,
    ) -> Iterator[Sequence[Sequence[Any]]]:
        """Yield the usage records, oldest first, in batches of rows with the columns of `usage`.

        No more than `RECORDS_PER_BATCH` rows are in memory. `metadata` is JSON text.

        Raises:
            InvalidRequest: Records from `since_ms` on were pruned.
            SQLAlchemyError: The database cannot be read.
        """
        columns = [cast(each, Text) if each is usage.c.metadata else each for each in usage.c]
        with self._reading(is_limited=False) as connection:
            if since_ms is not None:
                _check_kept(connection, since_ms)
            span = _clip(_extent(connection), since_ms, until_ms)
            query = (
                select(*columns)
                .where(usage.c.at_ms >= span.start_ms, usage.c.at_ms < span.end_ms)
                .where(*(_condition(connection, usage, each) for each in filters))
                .order_by(usage.c.at_ms, usage.c.id, usage.c.line)
            )
            rows = connection.execution_options(yield_per=RECORDS_PER_BATCH).execute(query)
            for batch in rows.partitions():
                yield [tuple(row) for row in batch]

    def read_names(self, *, projects: Collection[str], keys: Collection[str]) -> EntityNames:
        """Return the names of the projects and keys with these ids. Unknown ids are left out.

        Raises:
            SQLAlchemyError: The database cannot be read.
        """
        with self._engine.connect() as connection:
            return EntityNames(
                projects=_names(connection, tables.projects, projects),
                keys=_names(connection, tables.keys, keys),
            )

    def read_extent(self) -> TimeSpan:
        """Return the time from the first to the last UTC day with usage."""
        with self._reading(is_limited=True) as connection:
            return _extent(connection)

    @contextmanager
    def _reading(self, *, is_limited: bool) -> Generator[Connection]:
        """Open a connection that sees one state of the database, whatever is committed then."""
        with self._engine.connect() as connection:
            if connection.dialect.name == _SQLITE:
                connection.exec_driver_sql("BEGIN")
            else:
                connection.execution_options(isolation_level="REPEATABLE READ")
            if not is_limited:
                database.lift_time_limits(connection)
                yield connection
                return
            with _time_limit(connection, self._time_limit_s):
                yield connection


@contextmanager
def _time_limit(connection: Connection, limit_s: float) -> Generator[None]:
    """Interrupt queries after `limit_s`.

    Raises:
        InvalidRequest: A query was interrupted.
    """
    session: Any = connection.connection.driver_connection
    on_sqlite = connection.dialect.name == _SQLITE
    if on_sqlite:
        end_s = time.monotonic() + limit_s
        session.set_progress_handler(lambda: time.monotonic() > end_s, _SQLITE_STEPS)
    else:
        limit_ms = max(1, round(limit_s * 1000))
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = {limit_ms}")
    try:
        yield
    except OperationalError as error:
        cause = error.orig
        if str(cause) != "interrupted" and getattr(cause, "sqlstate", None) != QUERY_CANCELED:
            raise
        raise InvalidRequest(
            f"This takes longer than {limit_s:g} s. Ask for fewer buckets at a time. Sums by "
            "metadata or minute are slow, because they read every usage record."
        ) from None
    finally:
        if on_sqlite:
            session.set_progress_handler(None, 0)


def kept_from_ms(connection: Connection) -> int:
    """Return the time since which all records are kept, in ms; 0 if none were ever deleted."""
    query = select(installation.c.value).where(installation.c.name == RECORDS_FROM)
    return int(connection.scalar(query) or 0)


def _sum_up(
    connection: Connection,
    query: UsageQuery,
    reads: Sequence[tuple[Table, BucketRun]],
    max_results: int | None,
) -> list[tuple[int, Group, tuple[int, ...]]]:
    """Return the sums of each bucket and group, sorted."""
    found: dict[tuple[int, Group], tuple[int, ...]] = {}
    first_sum = len(query.group_by) + 1
    for table, run in reads:
        for row in connection.execute(_select(connection, query, table, run, max_results)):
            key = row[0], tuple(row[1:first_sum])
            sums, before = tuple(row[first_sum:]), found.get(key)
            found[key] = tuple(map(add, before, sums)) if before else sums
        if max_results is not None and len(found) > max_results:
            raise InvalidRequest(
                f"There are more than {max_results} results. Ask for fewer buckets at a time, "
                "group by less, or filter.",
                param="limit",
            )
    return [(*key, found[key]) for key in sorted(found, key=_order)]


def _order(key: tuple[int, Group]) -> tuple[int, list[tuple[bool, str | None]]]:
    # None comes first. It cannot be compared with a string.
    return key[0], [(each is not None, each) for each in key[1]]


def _select(
    connection: Connection, query: UsageQuery, table: Table, run: BucketRun, max_results: int | None
) -> Select[Any]:
    at_ms = table.c.at_ms
    groups = [
        (run.first_bucket + (at_ms - run.span.start_ms) // run.piece_ms).label("bucket"),
        *(_value(connection, table, each) for each in query.group_by),
    ]
    sums = [integer_sum(table.c.requests)] if table is refusals else sums_of(table)
    statement = (
        select(*groups, *sums)
        .where(at_ms >= run.span.start_ms, at_ms < run.span.end_ms)
        .where(*(_condition(connection, table, each) for each in query.filters))
        # By number, because Postgres takes two expressions with bound values for different ones.
        .group_by(*(literal_column(str(each + 1), Integer) for each in range(len(groups))))
    )
    return statement if max_results is None else statement.limit(max_results + 1)


def _value(connection: Connection, table: Table, dimension: Dimension) -> ColumnElement[Any]:
    """Return SQL for the value of a dimension in a row; null if it has none."""
    if not dimension.startswith(METADATA):
        return func.nullif(table.c[dimension], "")
    key = dimension.removeprefix(METADATA)
    if connection.dialect.name == _SQLITE:
        # Not a JSON path, because a key may contain any character.
        pairs = func.json_each(table.c.metadata).table_valued("key", "value")
        return select(pairs.c.value).where(pairs.c.key == key).scalar_subquery()
    return table.c.metadata.op("->>", return_type=Text())(key)


def _condition(connection: Connection, table: Table, filter: UsageFilter) -> ColumnElement[bool]:
    if filter.dimension.startswith(METADATA):
        value = _value(connection, table, filter.dimension)
        chosen = value.in_([each for each in filter.values if each])
        return chosen | (func.coalesce(value, "") == "") if "" in filter.values else chosen
    column = table.c[filter.dimension]
    chosen = column.in_(filter.values)
    return chosen | (column == null()) if "" in filter.values else chosen


def _extent(connection: Connection, table: Table = usage_days, width_ms: int = DAY_MS) -> TimeSpan:
    """Return the time from the first to the last row of a table."""
    first, last = (select(each(table.c.at_ms)).scalar_subquery() for each in (func.min, func.max))
    start_ms, last_ms = connection.execute(select(first, last)).one()
    return TimeSpan(0, 0) if start_ms is None else TimeSpan(start_ms, last_ms + width_ms)


def _buckets(
    query: UsageQuery, extent: TimeSpan, since_ms: int | None, until_ms: int | None
) -> Sequence[TimeSpan]:
    return list(split_span(_clip(extent, since_ms, until_ms), query.width, query.zone))


def _clip(extent: TimeSpan, since_ms: int | None, until_ms: int | None) -> TimeSpan:
    return TimeSpan(
        extent.start_ms if since_ms is None else since_ms,
        extent.end_ms if until_ms is None else until_ms,
    ).clip_to(extent)


def _names(connection: Connection, table: Table, ids: Collection[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    ordered = sorted(ids)
    for start in range(0, len(ordered), IDS_PER_QUERY):
        some = ordered[start : start + IDS_PER_QUERY]
        query = select(table.c.id, table.c.name).where(table.c.id.in_(some))
        found.update((id, name) for id, name in connection.execute(query))
    return found


def _check_kept(connection: Connection, from_ms: int) -> None:
    """Raise `InvalidRequest` if records from `from_ms` on were pruned."""
    kept_ms = kept_from_ms(connection)
    if from_ms >= kept_ms:
        return
    needed, since = (to_local(each, UTC).isoformat() for each in (from_ms, kept_ms))
    raise InvalidRequest(
        f"This needs usage records from {needed} on, but records are only kept since {since}. "
        "Start then or later. Of older usage only sums by hour and day are left: ask for no "
        "metadata and no minutes, and let the start, the end and every bucket begin at a full "
        "hour of UTC.",
        param="start_time",
    )
