"""The response headers for deployments that are deprecated or about to retire."""

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time
from email.utils import format_datetime


def lifetime_headers(
    *, deprecated: Sequence[date], retires: Sequence[date]
) -> Iterator[tuple[str, str]]:
    """Yield `Deprecation` (RFC 9745) and `Sunset` (RFC 8594), each with the earliest date.

    Args:
        deprecated: Since when the deployments that answered are deprecated, for those that are.
        retires: When they retire, for those that retire soon.
    """
    if deprecated:
        yield "deprecation", f"@{_midnight(min(deprecated)).timestamp():.0f}"
    if retires:
        yield "sunset", format_datetime(_midnight(min(retires)), usegmt=True)


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time.min, UTC)
