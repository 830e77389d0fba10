"""Decides whether and when to retry a failed call.

A call that was not sent or not billed is tried up to three times, one that may have been billed
twice, and one that was billed once. All retries of the process share a budget, so that a provider
in trouble does not get more calls than a healthy one.
"""

import random

from embedway.core.provider_error import TRANSIENT, Billable, ProviderError

BUDGET_SHARE = 0.2
"""The largest share of the calls in flight that may be retries."""
BUDGET_FLOOR = 3
"""Retries that are always allowed, even with few calls; like Envoy's `min_retry_concurrency`."""
MAX_TRIES: dict[Billable, int] = {"not sent": 3, "no": 3, "maybe": 2, "yes": 1}
FIRST_WAIT_S = 0.1
LONGEST_WAIT_S = 5.0
"""The longest wait before a retry. For longer waits the client gets `Retry-After`."""


class RetryBudget:
    """Counts calls and retries in flight; one for the process."""

    def __init__(self) -> None:
        self.calls = 0
        self.retries = 0

    @property
    def has_room(self) -> bool:
        """Whether one more retry is allowed."""
        return self.retries < max(BUDGET_FLOOR, BUDGET_SHARE * self.calls)


def retry_wait_s(error: ProviderError, *, tries: int, left_s: float) -> float | None:
    """Return how long to wait before the next try, or None to give up.

    Args:
        error: Why the last try failed.
        tries: How many tries were made.
        left_s: The time until the caller's deadline.
    """
    if error.kind not in TRANSIENT and not error.retry_immediately:
        return None
    if tries >= MAX_TRIES[error.billed]:
        return None
    if error.retry_immediately:
        return 0.0
    # Full jitter, so that calls that failed together are not repeated together.
    wait_s = random.uniform(0, FIRST_WAIT_S * 2**tries)
    if error.retry_after_s is not None:
        wait_s += error.retry_after_s
    return wait_s if wait_s < min(left_s, LONGEST_WAIT_S) else None
