"""Decides whether and when a failed call is tried again.

A call that was never sent or was refused may be sent again; one that may have been billed once
more only; one that was answered, however wrongly, never. All retries of the process together stay
within a budget, or a provider in trouble would get more calls than one that is well.
"""

import random

from embedway.core.provider_error import TRANSIENT, Billable, ProviderError

BUDGET_SHARE = 0.2
"""The largest share of the calls in flight that may be retries."""
BUDGET_FLOOR = 3
"""Retries that are always allowed, or a quiet gateway had none; Envoy's `min_retry_concurrency`."""
MAX_TRIES: dict[Billable, int] = {"not sent": 3, "no": 3, "maybe": 2, "yes": 1}
FIRST_WAIT_S = 0.1
LONGEST_WAIT_S = 5.0
"""The longest wait before a retry. A client does a longer wait itself, told by `Retry-After`."""


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
    """How long to wait before the next try; None to give up.

    Args:
        error: Why the last try failed.
        tries: How many tries there were.
        left_s: The time until the caller's deadline.
    """
    if error.kind not in TRANSIENT and not error.retry_immediately:
        return None
    if tries >= MAX_TRIES[error.billed]:
        return None
    if error.retry_immediately:
        return 0.0
    # Full jitter: calls that failed together do not come back together.
    wait_s = random.uniform(0, FIRST_WAIT_S * 2**tries)
    if error.retry_after_s is not None:
        wait_s += error.retry_after_s
    return wait_s if wait_s < min(left_s, LONGEST_WAIT_S) else None
