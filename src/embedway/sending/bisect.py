"""Finds the item because of which a provider refuses a batch."""

import asyncio

from embedway.core.batch import Batch
from embedway.core.provider_error import ITEM_KINDS, ProviderError
from embedway.sending.attempt import Attempt
from embedway.sending.outcome import Success
from embedway.sending.retries import RetryBudget


class _UnclearError(Exception):
    """A part of the batch failed for another reason, which ends the search."""


async def find_refused_item(
    attempt: Attempt,
    batch: Batch,
    *,
    budget: RetryBudget,
    is_item_fault: bool,
    deadline_s: float,
    left_s: float,
    others: int,
) -> int | None:
    """Return the index in `batch` of the refused item, or None if it cannot be found.

    A binary search. It sends the first half, and the second half too until some part has passed,
    and continues in the refused half. If both are refused, the fault may lie in the request, and
    the search ends; with `is_item_fault`, it continues in the first half. An item is returned only
    if another part of the batch passed.

    Args:
        attempt: The deployment that refused the batch.
        batch: At least two items.
        budget: The retry budget that each step counts against.
        is_item_fault: Whether the fault is certain to lie in an item, not in the whole request.
        deadline_s: The caller's deadline, on the clock of `HealthRegistry.now_s`.
        left_s: The time until then. The search takes at most half of it.
        others: How many attempts are left to fail over to.
    """

    async def is_refused(start: int, end: int) -> bool:
        budget.calls += 1
        try:
            outcome = await attempt.run(
                batch.slice(start, end), deadline_s=deadline_s, others=others
            )
        finally:
            budget.calls -= 1
        if isinstance(outcome, Success):
            return False
        if isinstance(outcome.error, ProviderError) and outcome.error.kind in ITEM_KINDS:
            return True
        raise _UnclearError

    start, end = 0, len(batch.items)
    has_passed = False
    try:
        async with asyncio.timeout(left_s / 2):
            while end - start > 1:
                if not budget.has_room:
                    return None
                middle = (start + end) // 2
                budget.retries += 1
                try:
                    if not await is_refused(start, middle):
                        start, has_passed = middle, True
                        continue
                    if not has_passed:
                        has_passed = not await is_refused(middle, end)
                        if not has_passed and not is_item_fault:
                            return None
                    end = middle
                finally:
                    budget.retries -= 1
    except (_UnclearError, TimeoutError):
        return None
    return start if has_passed else None
