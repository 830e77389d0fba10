"""Reads the wall clock, for times that are stored or compared across processes."""

import time
from datetime import UTC, date, datetime


def now_ms() -> int:
    """Return the milliseconds since 1970-01-01 UTC."""
    return time.time_ns() // 1_000_000


def today() -> date:
    """Return the current day in UTC."""
    return datetime.now(UTC).date()
