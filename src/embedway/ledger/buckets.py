"""Stretches of time that usage is summed by, and where the sum of each may be read from.

Owns the arithmetic of calendars: a day in Berlin has 23, 24 or 25 hours. Knows nothing of tables.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from typing import Literal
from zoneinfo import ZoneInfo, available_timezones

import msgspec

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Width = Literal["1m", "1h", "1d", "1mo"]
Source = Literal["days", "hours", "lines"]
"""Sums of UTC days, sums of UTC hours, and the ledger's lines themselves."""

GRID_MS: dict[Source, int] = {"days": DAY_MS, "hours": HOUR_MS, "lines": 1}
"""Where the edges of a source's rows lie. Coarsest first: so many fewer rows have to be read."""
_CLOCK_MS: dict[Width, int] = {"1m": MINUTE_MS, "1h": HOUR_MS}


class TimeSpan(msgspec.Struct, frozen=True):
    """From `start_ms` up to but without `end_ms`, in milliseconds since 1970-01-01 UTC."""

    start_ms: int
    end_ms: int

    def within(self, other: "TimeSpan") -> "TimeSpan":
        """The part of it that lies in `other`; one without length if there is none."""
        start_ms = max(self.start_ms, other.start_ms)
        return TimeSpan(start_ms, max(start_ms, min(self.end_ms, other.end_ms)))


class BucketRun(msgspec.Struct, frozen=True, kw_only=True):
    """What one query reads: one or more parts of buckets, equally long and without gaps."""

    source: Source
    bucket: int
    """That of the first part; the next part is the next bucket's."""
    part_ms: int
    """How long each part is."""
    span: TimeSpan


@cache
def time_zones() -> frozenset[str]:
    """The names of all time zones."""
    return frozenset(available_timezones())


def split_span(span: TimeSpan, width: Width | None, zone: ZoneInfo) -> Iterator[TimeSpan]:
    """`span` cut at every minute, hour, midnight or first of a month that clocks in `zone` show.

    The first and the last may be shorter, for they are clipped to `span`. Without `width` there is
    one. No bucket is made before it is asked for, so `span` may be huge.
    """
    start_ms = span.start_ms
    while start_ms < span.end_ms:
        end_ms = span.end_ms if width is None else _edge(start_ms, width, zone)
        bucket = TimeSpan(start_ms, min(end_ms, span.end_ms))
        yield bucket
        start_ms = bucket.end_ms


def plan_reads(parts: Iterable[TimeSpan], sources: Sequence[Source]) -> list[BucketRun]:
    """How to read buckets with as few rows, and then as few queries, as the sources allow.

    Args:
        parts: What is to be read of each bucket, in order.
        sources: Which there are, coarsest first; the last one is `lines`.
    """
    pieces: list[tuple[Source, int, TimeSpan]] = [
        (source, bucket, piece)
        for bucket, part in enumerate(parts)
        for source, piece in _pieces(part, sources)
    ]
    pieces.sort(key=lambda each: (each[0], each[2].start_ms))
    found: list[BucketRun] = []
    for source, bucket, piece in pieces:
        if found and (longer := _longer(found[-1], source, bucket, piece)):
            found[-1] = longer
        else:
            part_ms = piece.end_ms - piece.start_ms
            found.append(BucketRun(source=source, bucket=bucket, part_ms=part_ms, span=piece))
    return found


def to_local(at_ms: int, zone: ZoneInfo) -> datetime:
    """What calendars and clocks in `zone` show at `at_ms`."""
    return (EPOCH + timedelta(milliseconds=at_ms)).astimezone(zone)


def epoch_ms(at: datetime) -> int:
    """Milliseconds since 1970-01-01 UTC at `at`, which has a time zone."""
    return (at.astimezone(UTC) - EPOCH) // timedelta(milliseconds=1)


def _edge(at_ms: int, width: Width, zone: ZoneInfo) -> int:
    """The first edge after `at_ms`."""
    width_ms = _CLOCK_MS.get(width)
    if width_ms is not None:
        return _clock_edge(at_ms, width_ms, zone)
    day = to_local(at_ms, zone).date()
    while True:
        day = _next_date(day, width)
        edge_ms = epoch_ms(datetime.combine(day, time(), zone))
        # A clock may be set back across midnight, and a day may be left out: Apia had no
        # 2011-12-30.
        if edge_ms > at_ms:
            return edge_ms


def _clock_edge(at_ms: int, width_ms: int, zone: ZoneInfo) -> int:
    edge_ms = at_ms
    while True:
        edge_ms += width_ms - _into(edge_ms, width_ms, zone)
        # Not so where the clock was set by half an hour meanwhile.
        if _into(edge_ms, width_ms, zone) == 0:
            return edge_ms


def _into(at_ms: int, width_ms: int, zone: ZoneInfo) -> int:
    """How much of the hour or minute the clock shows is over, in milliseconds."""
    offset = to_local(at_ms, zone).utcoffset() or timedelta()
    return (at_ms + offset // timedelta(milliseconds=1)) % width_ms


def _next_date(day: date, width: Width) -> date:
    if width == "1d":
        return day + timedelta(days=1)
    return (day.replace(day=1) + timedelta(days=31)).replace(day=1)


def _pieces(span: TimeSpan, sources: Sequence[Source]) -> Iterator[tuple[Source, TimeSpan]]:
    """The rows of the coarsest source that are wholly inside, and the finer ones around them."""
    if span.start_ms >= span.end_ms:
        return
    source, *finer = sources
    grid_ms = GRID_MS[source]
    first_ms = -(-span.start_ms // grid_ms) * grid_ms
    last_ms = span.end_ms // grid_ms * grid_ms
    if first_ms >= last_ms:
        yield from _pieces(span, finer)
        return
    yield from _pieces(TimeSpan(span.start_ms, first_ms), finer)
    yield source, TimeSpan(first_ms, last_ms)
    yield from _pieces(TimeSpan(last_ms, span.end_ms), finer)


def _longer(run: BucketRun, source: Source, bucket: int, piece: TimeSpan) -> BucketRun | None:
    """`run` with `piece` as its next part, if it is."""
    parts = (run.span.end_ms - run.span.start_ms) // run.part_ms
    next_one = (run.source, run.bucket + parts, run.span.end_ms, run.part_ms)
    if next_one != (source, bucket, piece.start_ms, piece.end_ms - piece.start_ms):
        return None
    return msgspec.structs.replace(run, span=TimeSpan(run.span.start_ms, piece.end_ms))
