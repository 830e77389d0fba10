"""Reads usage: sums by time and group, from roll-ups as far as they reach, and single lines.

Owns which table answers what. Everything a caller names is bound, never part of the SQL.
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

LINES_FROM = "lines_from_ms"
"""In `installation`: since when lines are kept; none if all are."""
LINES_AT_ONCE = 10_000
NAMES_AT_ONCE = 1_000
QUERY_CANCELED = "57014"
"""Of Postgres, for a statement that took too long."""
PATIENCE_S = 5.0
"""For those who ask over HTTP: so that nobody keeps the database busy for others."""

_TABLES: dict[Source, Table] = {"days": usage_days, "hours": usage_hours, "lines": usage}
_USER_TABLES: dict[Source, Table] = {
    "days": usage_user_days,
    "hours": usage_user_hours,
    "lines": usage,
}
_SQLITE = "sqlite"
_SQLITE_STEPS = 10_000
"""Between two looks at the clock: less than a millisecond."""

Group = tuple[str | None, ...]


class UsageReports:
    """Usage as it is committed in a SQL database."""

    def __init__(self, engine: Engine, *, patience_s: float = PATIENCE_S) -> None:
        """Takes the database, and how long a query that has a bound may take."""
        self._engine = engine
        self._patience_s = patience_s

    def within(
        self, query: UsageQuery, spans: Sequence[TimeSpan], *, most: int | None = None
    ) -> list[UsageGroup]:
        """What each group used in each of `spans`, in their order and then in that of the groups.

        Where nothing was used there is nothing.

        Args:
            query: What to sum.
            spans: Buckets, in order and without gaps.
            most: How many results there may be; None for any number, in any time.

        Raises:
            InvalidRequest: There are more than `most`, it takes too long, or lines it needs were
                pruned.
            SQLAlchemyError: The database cannot be read.
        """
        with self._reading(bounded=most is not None) as connection:
            return _within(connection, query, spans, most)

    def report(
        self, query: UsageQuery, *, since_ms: int | None = None, until_ms: int | None = None
    ) -> list[UsageGroup]:
        """As `within`, of all buckets of a time; without bounds of all that was ever used.

        Raises:
            InvalidRequest: Lines it needs were pruned.
            SQLAlchemyError: The database cannot be read.
        """
        with self._reading(bounded=False) as connection:
            span = _asked(_extent(connection), since_ms, until_ms)
            spans = list(split_span(span, query.width, query.zone))
            return _within(connection, query, spans, None)

    def records(
        self,
        where: Sequence[UsageFilter] = (),
        *,
        since_ms: int | None = None,
        until_ms: int | None = None,
    ) -> Iterator[Sequence[Sequence[Any]]]:
        """The lines themselves, oldest first: batches of rows with the columns of `usage`.

        As many rows as `LINES_AT_ONCE` are in memory, however many there are. `metadata` is JSON
        text.

        Raises:
            InvalidRequest: Lines from `since_ms` on were pruned.
            SQLAlchemyError: The database cannot be read.
        """
        columns = [cast(each, Text) if each is usage.c.metadata else each for each in usage.c]
        with self._reading(bounded=False) as connection:
            if since_ms is not None:
                _refuse_pruned(connection, since_ms)
            span = _asked(_extent(connection), since_ms, until_ms)
            chosen = (
                select(*columns)
                .where(usage.c.at_ms >= span.start_ms, usage.c.at_ms < span.end_ms)
                .where(*(_is_one(connection, usage, each) for each in where))
                .order_by(usage.c.at_ms, usage.c.id, usage.c.line)
            )
            rows = connection.execution_options(yield_per=LINES_AT_ONCE).execute(chosen)
            for part in rows.partitions():
                yield [tuple(row) for row in part]

    def names(self, *, projects: Collection[str], keys: Collection[str]) -> EntityNames:
        """The names of the projects and keys with these ids, as far as there are such.

        Raises:
            SQLAlchemyError: The database cannot be read.
        """
        with self._engine.connect() as connection:
            return EntityNames(
                projects=_names(connection, tables.projects, projects),
                keys=_names(connection, tables.keys, keys),
            )

    def extent(self) -> TimeSpan:
        """The UTC days from the first to the last that anything was used on."""
        with self._reading(bounded=True) as connection:
            return _extent(connection)

    def refused_within(
        self, query: UsageQuery, spans: Sequence[TimeSpan], *, most: int | None = None
    ) -> list[RefusalGroup]:
        """Count the refused requests of each group in each of `spans`, ordered as by `within`.

        They are counted by quarter hour, which counts in the span that it begins in.

        Args:
            query: What to group and filter by: no more than `OF_REFUSALS`.
            spans: Buckets, in order and without gaps.
            most: See `within`.

        Raises:
            InvalidRequest: There are more than `most`, or it takes too long.
            SQLAlchemyError: The database cannot be read.
        """
        with self._reading(bounded=most is not None) as connection:
            return _refused_within(connection, query, spans, most)

    def refused(
        self, query: UsageQuery, *, since_ms: int | None = None, until_ms: int | None = None
    ) -> list[RefusalGroup]:
        """Like `refused_within`, for all buckets of a time; without bounds for all that is counted.

        Raises:
            SQLAlchemyError: The database cannot be read.
        """
        with self._reading(bounded=False) as connection:
            span = _asked(_refusals_extent(connection), since_ms, until_ms)
            spans = list(split_span(span, query.width, query.zone))
            return _refused_within(connection, query, spans, None)

    @contextmanager
    def _reading(self, *, bounded: bool) -> Generator[Connection]:
        """One state of the database, whatever is committed meanwhile."""
        with self._engine.connect() as connection:
            if connection.dialect.name == _SQLITE:
                connection.exec_driver_sql("BEGIN")
            else:
                connection.execution_options(isolation_level="REPEATABLE READ")
            if not bounded:
                database.lift_time_limits(connection)
                yield connection
                return
            with _bounded(connection, self._patience_s):
                yield connection


@contextmanager
def _bounded(connection: Connection, patience_s: float) -> Generator[None]:
    """Ends what takes longer.

    Raises:
        InvalidRequest: It did.
    """
    session: Any = connection.connection.driver_connection
    on_sqlite = connection.dialect.name == _SQLITE
    if on_sqlite:
        end_s = time.monotonic() + patience_s
        session.set_progress_handler(lambda: time.monotonic() > end_s, _SQLITE_STEPS)
    else:
        limit_ms = max(1, round(patience_s * 1000))
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = {limit_ms}")
    try:
        yield
    except OperationalError as error:
        cause = error.orig
        if str(cause) != "interrupted" and getattr(cause, "sqlstate", None) != QUERY_CANCELED:
            raise
        raise InvalidRequest(
            f"This takes longer than {patience_s:g} s. Ask for fewer buckets at a time; sums by "
            "metadata and minutes read every line of their time."
        ) from None
    finally:
        if on_sqlite:
            session.set_progress_handler(None, 0)


def kept_from_ms(connection: Connection) -> int:
    """From when on all lines are kept; 0 if none were ever deleted."""
    query = select(installation.c.value).where(installation.c.name == LINES_FROM)
    return int(connection.scalar(query) or 0)


def _within(
    connection: Connection, query: UsageQuery, spans: Sequence[TimeSpan], most: int | None
) -> list[UsageGroup]:
    extent = _extent(connection)
    to_do = plan_reads((each.within(extent) for each in spans), query.sources)
    if lines := [each.span.start_ms for each in to_do if each.source == "lines"]:
        _refuse_pruned(connection, min(lines))
    sources = _USER_TABLES if "end_user" in query.dimensions else _TABLES
    parts = [(sources[run.source], run) for run in to_do]
    return [
        UsageGroup(spans[bucket], group, UsageTotals(*sums))
        for bucket, group, sums in _summed(connection, query, parts, most)
    ]


def _refused_within(
    connection: Connection, query: UsageQuery, spans: Sequence[TimeSpan], most: int | None
) -> list[RefusalGroup]:
    extent = _refusals_extent(connection)
    parts = [
        (refusals, run) for run in plan_reads((each.within(extent) for each in spans), ("lines",))
    ]
    return [
        RefusalGroup(spans[bucket], group, *sums)
        for bucket, group, sums in _summed(connection, query, parts, most)
    ]


def _summed(
    connection: Connection,
    query: UsageQuery,
    parts: Sequence[tuple[Table, BucketRun]],
    most: int | None,
) -> list[tuple[int, Group, tuple[int, ...]]]:
    """The sums of each bucket and group, in order, from the rows of `parts`."""
    found: dict[tuple[int, Group], tuple[int, ...]] = {}
    first_sum = len(query.by) + 1
    for table, run in parts:
        for row in connection.execute(_select(connection, query, table, run, most)):
            key = row[0], tuple(row[1:first_sum])
            sums, before = tuple(row[first_sum:]), found.get(key)
            found[key] = tuple(map(add, before, sums)) if before else sums
        if most is not None and len(found) > most:
            raise InvalidRequest(
                f"There are more than {most} results. Ask for fewer buckets at a time, for fewer "
                "groups, or for some of them only.",
                param="limit",
            )
    return [(*key, found[key]) for key in sorted(found, key=_order)]


def _order(key: tuple[int, Group]) -> tuple[int, list[tuple[bool, str | None]]]:
    # Those that have no value come first; it cannot be compared with one.
    return key[0], [(each is not None, each) for each in key[1]]


def _select(
    connection: Connection, query: UsageQuery, table: Table, run: BucketRun, most: int | None
) -> Select[Any]:
    at_ms = table.c.at_ms
    groups = [
        (run.bucket + (at_ms - run.span.start_ms) // run.part_ms).label("bucket"),
        *(_value(connection, table, each) for each in query.by),
    ]
    sums = [integer_sum(table.c.requests)] if table is refusals else sums_of(table)
    chosen = (
        select(*groups, *sums)
        .where(at_ms >= run.span.start_ms, at_ms < run.span.end_ms)
        .where(*(_is_one(connection, table, each) for each in query.where))
        # By number: written twice, Postgres takes two values that are bound for two things.
        .group_by(*(literal_column(str(each + 1), Integer) for each in range(len(groups))))
    )
    return chosen if most is None else chosen.limit(most + 1)


def _value(connection: Connection, table: Table, of: Dimension) -> ColumnElement[Any]:
    """What `of` is in a row; null where it has none."""
    if not of.startswith(METADATA):
        return func.nullif(table.c[of], "")
    key = of.removeprefix(METADATA)
    if connection.dialect.name == _SQLITE:
        # A key may hold anything, which a path of JSON cannot.
        pairs = func.json_each(table.c.metadata).table_valued("key", "value")
        return select(pairs.c.value).where(pairs.c.key == key).scalar_subquery()
    return table.c.metadata.op("->>", return_type=Text())(key)


def _is_one(connection: Connection, table: Table, filter: UsageFilter) -> ColumnElement[bool]:
    if filter.of.startswith(METADATA):
        value = _value(connection, table, filter.of)
        chosen = value.in_([each for each in filter.values if each])
        return chosen | (func.coalesce(value, "") == "") if "" in filter.values else chosen
    column = table.c[filter.of]
    chosen = column.in_(filter.values)
    return chosen | (column == null()) if "" in filter.values else chosen


def _extent(connection: Connection) -> TimeSpan:
    return _extent_of(connection, usage_days, DAY_MS)


def _refusals_extent(connection: Connection) -> TimeSpan:
    return _extent_of(connection, refusals, QUARTER_MS)


def _extent_of(connection: Connection, table: Table, width_ms: int) -> TimeSpan:
    first, last = (select(each(table.c.at_ms)).scalar_subquery() for each in (func.min, func.max))
    start_ms, last_ms = connection.execute(select(first, last)).one()
    return TimeSpan(0, 0) if start_ms is None else TimeSpan(start_ms, last_ms + width_ms)


def _asked(extent: TimeSpan, since_ms: int | None, until_ms: int | None) -> TimeSpan:
    return TimeSpan(
        extent.start_ms if since_ms is None else since_ms,
        extent.end_ms if until_ms is None else until_ms,
    ).within(extent)


def _names(connection: Connection, table: Table, ids: Collection[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    wanted = sorted(ids)
    for start in range(0, len(wanted), NAMES_AT_ONCE):
        some = wanted[start : start + NAMES_AT_ONCE]
        query = select(table.c.id, table.c.name).where(table.c.id.in_(some))
        found.update((id, name) for id, name in connection.execute(query))
    return found


def _refuse_pruned(connection: Connection, from_ms: int) -> None:
    """Raises InvalidRequest if lines from `from_ms` on are needed and were pruned."""
    kept_ms = kept_from_ms(connection)
    if from_ms >= kept_ms:
        return
    needed, since = (to_local(each, UTC).isoformat() for each in (from_ms, kept_ms))
    raise InvalidRequest(
        f"This needs ledger lines from {needed} on, and lines are kept since {since}: older ones "
        "were pruned. Begin then or later. Sums of older usage are there for hours and days: ask "
        "for no metadata and no minutes, and let the start, the end and every bucket begin at a "
        "full hour of UTC.",
        param="start_time",
    )
