"""Decides whether a failed call is tried again, and after how long.

A call that may have been billed is never sent twice unless `retry_billed` says so. The gateway
charges only for answers of status 200, so its own error answers are safe to retry.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

from embedway_sdk.errors import APIError, ConnectionError, EmbedwayError, RateLimitError

RETRIED = frozenset({408, 429, 502, 503, 504})
"""The statuses after which another try may succeed."""


@dataclass(frozen=True)
class BackoffStrategy:
    """How long to wait between tries, in milliseconds.

    The wait doubles (`exponent` 2) from `initial_interval` up to `max_interval`, less up to half
    by chance, so that clients do not come back together.
    """

    initial_interval: int = 500
    max_interval: int = 8_000
    exponent: float = 2.0
    max_elapsed_time: int = 120_000
    """Start no try later than this after the first one began."""


@dataclass(frozen=True)
class RetryConfig:
    """Which failures are tried again, and how often."""

    strategy: Literal["backoff", "none"] = "backoff"
    """`none`: try once."""
    backoff: BackoffStrategy = BackoffStrategy()
    retry_connection_errors: bool = True
    """Try again if no connection came about."""
    retry_billed: bool = False
    """Try again even if the failed call may have been billed, such as after a timeout."""
    max_retries: int = 2
    """The most retries. One after a 429 that says how long to wait does not count."""

    def __post_init__(self) -> None:
        if self.strategy not in {"backoff", "none"}:
            raise ValueError(f"strategy {self.strategy!r} must be 'backoff' or 'none'.")

    def wait_s(
        self, error: EmbedwayError, *, retries: int, elapsed_s: float, is_safe: bool
    ) -> float | None:
        """Return the seconds to wait before the next try, or None to give up.

        Args:
            error: What ended the last try.
            retries: How many retries there were, not counting those after a 429 with a wait.
            elapsed_s: The seconds since the first try began.
            is_safe: Whether the call changes and costs nothing, such as a GET.
        """
        if self.strategy == "none" or not self._is_retried(error, is_safe=is_safe):
            return None
        if retries >= self.max_retries and not is_free(error):
            return None
        strategy = self.backoff
        exponential_ms = strategy.initial_interval * strategy.exponent ** min(retries, 64)
        wait_s = min(exponential_ms, strategy.max_interval) / 1000 * random.uniform(0.5, 1.0)
        if isinstance(error, APIError) and error.retry_after_s:
            wait_s = error.retry_after_s
        return wait_s if elapsed_s + wait_s <= strategy.max_elapsed_time / 1000 else None

    def _is_retried(self, error: EmbedwayError, *, is_safe: bool) -> bool:
        if error.may_be_billed and not (self.retry_billed or is_safe):
            return False
        if isinstance(error, APIError):
            return (
                error.status_code in RETRIED if error.should_retry is None else error.should_retry
            )
        return isinstance(error, ConnectionError) and (
            error.may_be_billed or self.retry_connection_errors
        )


def is_free(error: EmbedwayError) -> bool:
    """Return whether a retry after this error does not count: a 429 that says how long to wait."""
    return isinstance(error, RateLimitError) and bool(error.retry_after_s)
