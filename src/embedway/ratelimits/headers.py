"""The `x-ratelimit-*` headers of answers and refusals."""

import math
from collections.abc import Iterator, Sequence

from embedway.core.limit import LimitUnit
from embedway.ratelimits.status import LimitStatus

KINDS: tuple[LimitUnit, ...] = ("requests", "tokens")


def rate_limit_headers(standings: Sequence[LimitStatus]) -> Iterator[tuple[str, str]]:
    """Names and values: of the tightest limit of requests, and of tokens.

    The tightest is the one of which the smallest share is left.
    """
    for of in KINDS:
        tightest = min((each for each in standings if each.limit.of == of), key=_left, default=None)
        if tightest:
            yield f"x-ratelimit-limit-{of}", str(tightest.limit.amount)
            yield f"x-ratelimit-remaining-{of}", str(tightest.remaining)
            yield f"x-ratelimit-reset-{of}", format_duration(tightest.reset_s)


def format_duration(seconds: float) -> str:
    """Like `6m0s`, `1.5s` or `120ms`; rounded up, so that nobody is told to come too early."""
    # What a float adds beyond a nanosecond was never there.
    milliseconds = math.ceil(round(seconds * 1000, 6))
    if milliseconds < 1000:  # noqa: PLR2004  # to a second
        return f"{milliseconds}ms" if milliseconds else "0s"
    minutes, milliseconds = divmod(milliseconds, 60_000)
    text = f"{milliseconds / 1000:g}s"
    if minutes:
        hours, minutes = divmod(minutes, 60)
        text = f"{hours}h{minutes}m{text}" if hours else f"{minutes}m{text}"
    return text


def _left(standing: LimitStatus) -> tuple[float, float]:
    return standing.remaining / standing.limit.amount, -standing.reset_s
