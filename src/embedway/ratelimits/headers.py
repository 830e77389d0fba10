"""The `x-ratelimit-*` headers of responses."""

import math
from collections.abc import Iterator, Sequence

from embedway.core.limit import LimitUnit
from embedway.ratelimits.limiter import LimitStatus

KINDS: tuple[LimitUnit, ...] = ("requests", "tokens")


def rate_limit_headers(statuses: Sequence[LimitStatus]) -> Iterator[tuple[str, str]]:
    """Yield header names and values for the tightest request limit and the tightest token limit.

    The tightest limit is the one with the smallest fraction remaining.
    """
    for unit in KINDS:
        tightest = min(
            (each for each in statuses if each.limit.of == unit), key=_tightness, default=None
        )
        if tightest:
            yield f"x-ratelimit-limit-{unit}", str(tightest.limit.amount)
            yield f"x-ratelimit-remaining-{unit}", str(tightest.remaining)
            yield f"x-ratelimit-reset-{unit}", format_duration(tightest.reset_s)


def format_duration(seconds: float) -> str:
    """Format a duration like `6m0s`, `1.5s` or `120ms`, rounded up to the next millisecond."""
    # Anything below a nanosecond is a floating-point error, not time.
    milliseconds = math.ceil(round(seconds * 1000, 6))
    if milliseconds < 1000:  # noqa: PLR2004  # to a second
        return f"{milliseconds}ms" if milliseconds else "0s"
    minutes, milliseconds = divmod(milliseconds, 60_000)
    text = f"{milliseconds / 1000:g}s"
    if minutes:
        hours, minutes = divmod(minutes, 60)
        text = f"{hours}h{minutes}m{text}" if hours else f"{minutes}m{text}"
    return text


def _tightness(status: LimitStatus) -> tuple[float, float]:
    return status.remaining / status.limit.amount, -status.reset_s
