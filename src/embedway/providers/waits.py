"""When a provider wants to be asked again, from the many ways in which providers say so."""

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

MAX_WAIT_S = 86_400.0
"""A longer wait than a day is a mistake."""

LONG_AGO_S = 1e9
"""In 2001: a larger number of seconds is not how long, but until when since 1970."""

_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)(ms|d|h|m|s))", re.ASCII)
_WHOLE_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|d|h|m|s))+", re.ASCII)
_NUMBER = re.compile(r"\d+(?:\.\d+)?", re.ASCII)
_SPOKEN = re.compile(
    r"(?:try again|retry|wait)[^.]{0,30}? (\d+(?:\.\d+)?) ?(ms|s|m|h|seconds?|minutes?)\b",
    re.IGNORECASE | re.ASCII,
)
_LIMITS = [
    (f"x-ratelimit-remaining{what}", f"x-ratelimit-reset{what}")
    for what in ("-requests", "-tokens", "")
]
_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def retry_after_s(headers: Mapping[str, str], message: str = "") -> float | None:
    """Seconds until another try makes sense; None if nothing says so, or only nonsense.

    Understands `retry-after-ms`, `Retry-After` in seconds and as a date (RFC 9110 section 10.2.3),
    the reset times of limits with nothing left (`6m0s`, seconds, or a time since 1970), and
    "Please try again in 2.8s".

    Args:
        headers: Of the reply, names in lower case.
        message: Of the error.
    """
    milliseconds = headers.get("retry-after-ms", "")
    if _NUMBER.fullmatch(milliseconds):
        return _sane(float(milliseconds) / 1000)
    if (wait_s := _seconds(headers.get("retry-after", ""))) is not None:
        return wait_s
    if (wait_s := rate_limit_rest_s(headers)) is not None:
        return wait_s
    if spoken := _SPOKEN.search(message):
        unit = spoken[2].lower()
        return _sane(float(spoken[1]) * _UNITS_S["ms" if unit == "ms" else unit[0]])
    return None


def rate_limit_rest_s(headers: Mapping[str, str]) -> float | None:
    """Seconds until there is something left of a rate limit; None if there is, or nothing says so.

    Args:
        headers: Of any reply, names in lower case.
    """
    resets = [
        wait_s
        for remaining, reset in _LIMITS
        if headers.get(remaining) == "0"
        and (wait_s := _seconds(headers.get(reset, ""))) is not None
    ]
    return max(resets, default=None)


def _seconds(value: str) -> float | None:
    value = value.strip()
    if _NUMBER.fullmatch(value):
        number = float(value)
        # Some say until when, not how long: https://docs.github.com/rest/rate-limit does.
        return _sane(number - _now_s() if number > LONG_AGO_S else number)
    if _WHOLE_DURATION.fullmatch(value):
        return _sane(sum(float(n) * _UNITS_S[unit] for n, unit in _DURATION.findall(value)))
    try:
        date = parsedate_to_datetime(value)
        return _sane(date.replace(tzinfo=date.tzinfo or UTC).timestamp() - _now_s())
    except (ArithmeticError, LookupError, TypeError, ValueError):  # no date, or one of no calendar
        return None


def _sane(wait_s: float) -> float | None:
    return max(wait_s, 0.0) if math.isfinite(wait_s) and wait_s <= MAX_WAIT_S else None


def _now_s() -> float:
    return datetime.now(UTC).timestamp()
