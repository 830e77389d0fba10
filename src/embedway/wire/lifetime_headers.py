"""The headers of an answer whose deployment is deprecated or about to retire."""

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time
from email.utils import format_datetime


def lifetime_headers(
    *, deprecated: Sequence[date], retires: Sequence[date]
) -> Iterator[tuple[str, str]]:
    """Names and values: `Deprecation` (RFC 9745) and `Sunset` (RFC 8594), each of the first date.

    Args:
        deprecated: From when the deployments that answered are advised against, where that is so.
        retires: When they retire, where that is soon.
    """
    if deprecated:
        yield "deprecation", f"@{_midnight(min(deprecated)).timestamp():.0f}"
    if retires:
        yield "sunset", format_datetime(_midnight(min(retires)), usegmt=True)


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time.min, UTC)
