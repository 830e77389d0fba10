"""Cuts time into the buckets of a usage report, and decides which table to read each of them from.

It owns the arithmetic of calendars: a day in Berlin has 23, 24 or 25 hours. It reads no table.
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
Source = Literal["days", "hours", "records"]
"""The roll-up by UTC day, the roll-up by UTC hour, or the usage records themselves."""

GRID_MS: dict[Source, int] = {"days": DAY_MS, "hours": HOUR_MS, "records": 1}
"""The time that one row of a source covers. The coarsest source needs the fewest rows."""
_CLOCK_MS: dict[Width, int] = {"1m": MINUTE_MS, "1h": HOUR_MS}


class TimeSpan(msgspec.Struct, frozen=True):
    """The time from `start_ms` up to, but without, `end_ms`, in ms since the epoch."""

    start_ms: int
    end_ms: int

    def clip_to(self, other: "TimeSpan") -> "TimeSpan":
        """Return the part of this span that lies in `other`; an empty span if none does."""
        start_ms = max(self.start_ms, other.start_ms)
        return TimeSpan(start_ms, max(start_ms, min(self.end_ms, other.end_ms)))


class BucketRun(msgspec.Struct, frozen=True, kw_only=True):
    """What one query reads: adjoining pieces of equal length, each from another bucket."""

    source: Source
    first_bucket: int
    """The index of the first piece's bucket. The next piece belongs to the next bucket."""
    piece_ms: int
    """The length of each piece."""
    span: TimeSpan


@cache
def time_zones() -> frozenset[str]:
    """Return the names of all time zones."""
    return frozenset(available_timezones())


def split_span(span: TimeSpan, width: Width | None, zone: ZoneInfo) -> Iterator[TimeSpan]:
    """Cut `span` at every minute, hour, midnight or first of a month that clocks in `zone` show.

    The first and the last bucket may be shorter, because they are clipped to `span`. Without
    `width` there is one bucket. Buckets are made one at a time, so `span` may be huge.
    """
    start_ms = span.start_ms
    while start_ms < span.end_ms:
        end_ms = span.end_ms if width is None else _next_edge(start_ms, width, zone)
        bucket = TimeSpan(start_ms, min(end_ms, span.end_ms))
        yield bucket
        start_ms = bucket.end_ms


def plan_reads(buckets: Iterable[TimeSpan], sources: Sequence[Source]) -> list[BucketRun]:
    """Plan how to read buckets with as few rows, and then as few queries, as the sources allow.

    `buckets` are in order. `sources` begin with the coarsest one and end with `records`.
    """
    pieces: list[tuple[Source, int, TimeSpan]] = [
        (source, at, piece)
        for at, bucket in enumerate(buckets)
        for source, piece in _pieces(bucket, sources)
    ]
    pieces.sort(key=lambda each: (each[0], each[2].start_ms))
    runs: list[BucketRun] = []
    for source, bucket, piece in pieces:
        if runs and (longer := _extend(runs[-1], source, bucket, piece)):
            runs[-1] = longer
        else:
            piece_ms = piece.end_ms - piece.start_ms
            runs.append(
                BucketRun(source=source, first_bucket=bucket, piece_ms=piece_ms, span=piece)
            )
    return runs


def to_local(at_ms: int, zone: ZoneInfo) -> datetime:
    """Return what calendars and clocks in `zone` show at `at_ms`."""
    return (EPOCH + timedelta(milliseconds=at_ms)).astimezone(zone)


def epoch_ms(at: datetime) -> int:
    """Return the ms since the epoch at `at`, which has a time zone."""
    return (at.astimezone(UTC) - EPOCH) // timedelta(milliseconds=1)


def _next_edge(at_ms: int, width: Width, zone: ZoneInfo) -> int:
    """Return where the bucket that contains `at_ms` ends."""
    width_ms = _CLOCK_MS.get(width)
    if width_ms is not None:
        return _next_clock_edge(at_ms, width_ms, zone)
    day = to_local(at_ms, zone).date()
    while True:
        day = _next_date(day, width)
        edge_ms = epoch_ms(datetime.combine(day, time(), zone))
        # A clock may be set back across midnight, and a day may be missing: Apia had no 2011-12-30.
        if edge_ms > at_ms:
            return edge_ms


def _next_clock_edge(at_ms: int, width_ms: int, zone: ZoneInfo) -> int:
    edge_ms = at_ms
    while True:
        edge_ms += width_ms - _elapsed_ms(edge_ms, width_ms, zone)
        # It is no edge if the clock was set by half an hour in between.
        if _elapsed_ms(edge_ms, width_ms, zone) == 0:
            return edge_ms


def _elapsed_ms(at_ms: int, width_ms: int, zone: ZoneInfo) -> int:
    """Return how much of the hour or minute that the clock shows has passed."""
    offset = to_local(at_ms, zone).utcoffset() or timedelta()
    return (at_ms + offset // timedelta(milliseconds=1)) % width_ms


def _next_date(day: date, width: Width) -> date:
    if width == "1d":
        return day + timedelta(days=1)
    return (day.replace(day=1) + timedelta(days=31)).replace(day=1)


def _pieces(span: TimeSpan, sources: Sequence[Source]) -> Iterator[tuple[Source, TimeSpan]]:
    """Yield the part that whole rows of the coarsest source cover, and finer pieces around it."""
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


def _extend(run: BucketRun, source: Source, bucket: int, piece: TimeSpan) -> BucketRun | None:
    """Return `run` with `piece` at its end; None if it does not fit there."""
    pieces = (run.span.end_ms - run.span.start_ms) // run.piece_ms
    fitting = (run.source, run.first_bucket + pieces, run.span.end_ms, run.piece_ms)
    if fitting != (source, bucket, piece.start_ms, piece.end_ms - piece.start_ms):
        return None
    return msgspec.structs.replace(run, span=TimeSpan(run.span.start_ms, piece.end_ms))
