"""Reads how long to wait before a retry, in all the forms that providers use."""

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

MAX_WAIT_S = 86_400.0
"""A wait of more than a day is taken for a mistake."""

MIN_EPOCH_S = 1e9
"""A larger number of seconds is not a wait but a time since 1970. This one is in 2001."""

_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)(ms|d|h|m|s))", re.ASCII)
_WHOLE_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|d|h|m|s))+", re.ASCII)
_NUMBER = re.compile(r"\d+(?:\.\d+)?", re.ASCII)
_SENTENCE = re.compile(
    r"(?:try again|retry|wait)[^.]{0,30}? (\d+(?:\.\d+)?) ?(ms|s|m|h|seconds?|minutes?)\b",
    re.IGNORECASE | re.ASCII,
)
_LIMITS = [
    (f"x-ratelimit-remaining{what}", f"x-ratelimit-reset{what}")
    for what in ("-requests", "-tokens", "")
]
_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def retry_after_s(headers: Mapping[str, str], message: str = "") -> float | None:
    """Return the seconds to wait before a retry; None if the reply does not say, or not sensibly.

    Understands `retry-after-ms`, `Retry-After` in seconds or as a date (RFC 9110 section 10.2.3),
    the reset times of used-up limits (`6m0s`, seconds, or a time since 1970), and "Please try again
    in 2.8s".

    Args:
        headers: The headers of the reply, with names in lower case.
        message: The message of the error.
    """
    milliseconds = headers.get("retry-after-ms", "")
    if _NUMBER.fullmatch(milliseconds):
        return _sane(float(milliseconds) / 1000)
    if (wait_s := _seconds(headers.get("retry-after", ""))) is not None:
        return wait_s
    if (wait_s := rate_limit_rest_s(headers)) is not None:
        return wait_s
    if found := _SENTENCE.search(message):
        unit = found[2].lower()
        return _sane(float(found[1]) * _UNITS_S["ms" if unit == "ms" else unit[0]])
    return None


def rate_limit_rest_s(headers: Mapping[str, str]) -> float | None:
    """Return the seconds until a used-up rate limit resets; None if no limit is used up.

    Args:
        headers: The headers of any reply, with names in lower case.
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
        # Some send the end of the wait, not its length: https://docs.github.com/rest/rate-limit
        return _sane(number - _now_s() if number > MIN_EPOCH_S else number)
    if _WHOLE_DURATION.fullmatch(value):
        return _sane(sum(float(n) * _UNITS_S[unit] for n, unit in _DURATION.findall(value)))
    try:
        date = parsedate_to_datetime(value)
        return _sane(date.replace(tzinfo=date.tzinfo or UTC).timestamp() - _now_s())
    except (
        ArithmeticError,
        LookupError,
        TypeError,
        ValueError,
    ):  # not a date, or an impossible one
        return None


def _sane(wait_s: float) -> float | None:
    return max(wait_s, 0.0) if math.isfinite(wait_s) and wait_s <= MAX_WAIT_S else None


def _now_s() -> float:
    return datetime.now(UTC).timestamp()
