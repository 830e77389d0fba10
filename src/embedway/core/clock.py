"""The wall clock, as everything stored and compared across processes sees it."""

import time
from datetime import UTC, date, datetime


def now_ms() -> int:
    """Milliseconds since 1970-01-01 UTC."""
    return time.time_ns() // 1_000_000


def today() -> date:
    """The day that it is, in UTC."""
    return datetime.now(UTC).date()
