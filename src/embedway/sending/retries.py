"""How often a failed call is tried again: what it may cost, how long it waits, how many there are.

A call that was never sent or was refused may be sent again; one that may have been billed once
more only; one that was answered, however wrongly, never. All retries of the process together stay
within a budget, or a provider in trouble would get more calls than one that is well.
"""

import random
from collections.abc import Generator
from contextlib import contextmanager

from embedway.core.provider_error import TRANSIENT, Billed, ProviderError

BUDGET_SHARE = 0.2
"""Of the calls in flight, how many may be retries."""
BUDGET_FLOOR = 3
"""Retries that always may be, or a quiet gateway had none; Envoy's `min_retry_concurrency`."""
MAX_TRIES: dict[Billed, int] = {"not sent": 3, "no": 3, "maybe": 2, "yes": 1}
FIRST_WAIT_S = 0.1
LONGEST_WAIT_S = 5.0
"""What a client should rather wait for itself is answered with `Retry-After`."""


class RetryBudget:
    """Counts calls and retries in flight; one for the process."""

    def __init__(self) -> None:
        self.calls = 0
        self.retries = 0

    @contextmanager
    def call(self) -> Generator[None]:
        """Counts a call."""
        self.calls += 1
        try:
            yield
        finally:
            self.calls -= 1

    @property
    def left(self) -> bool:
        """Whether one more retry may be."""
        return self.retries < max(BUDGET_FLOOR, BUDGET_SHARE * self.calls)

    @contextmanager
    def retry(self) -> Generator[None]:
        """Counts a retry, from the wait before it to its end."""
        self.retries += 1
        try:
            yield
        finally:
            self.retries -= 1


def wait_s(error: ProviderError, *, tried: int, left_s: float) -> float | None:
    """How long to wait before the next try; None for no other.

    Args:
        error: Of the last try.
        tried: How often it was tried.
        left_s: Until the caller's deadline.
    """
    if error.kind not in TRANSIENT and not error.again_now:
        return None
    if tried >= MAX_TRIES[error.billed]:
        return None
    if error.again_now:
        return 0.0
    # Full jitter: those who failed together do not come back together.
    wait = random.uniform(0, FIRST_WAIT_S * 2**tried)
    if error.retry_after_s is not None:
        wait += error.retry_after_s
    return wait if wait < min(left_s, LONGEST_WAIT_S) else None
