"""Finds the item for which a provider refuses a batch."""

import asyncio

from embedway.core.batch import Batch
from embedway.core.provider_error import ITEM_KINDS, ProviderError
from embedway.sending.attempt import Attempt
from embedway.sending.outcome import Success
from embedway.sending.retries import RetryBudget


class _UnclearError(Exception):
    """A part of the batch failed for another reason, so the search ends."""


async def find_refused_item(
    attempt: Attempt,
    batch: Batch,
    *,
    budget: RetryBudget,
    is_of_several: bool,
    deadline_s: float,
    left_s: float,
    others: int,
) -> int | None:
    """The index in `batch` of the item that is refused; None if that cannot be found out.

    Each half is sent once; if one is refused and the other is not, the search goes on in it. If
    both are, or if only one was sent at all, the reason may as well be in the request; where it
    cannot be, each half holds such an item, and the search goes on in the first. An item is named
    only if another part of the batch passes.

    Args:
        attempt: The deployment that refused the batch.
        batch: At least two items.
        budget: The retry budget that each step of the search counts against.
        is_of_several: Whether the reason cannot be in the request as a whole.
        deadline_s: The caller's deadline.
        left_s: The time until then. The search takes half of it; the rest belongs to the answer.
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
                        if not has_passed and not is_of_several:
                            return None
                    end = middle
                finally:
                    budget.retries -= 1
    except (_UnclearError, TimeoutError):
        return None
    return start if has_passed else None
