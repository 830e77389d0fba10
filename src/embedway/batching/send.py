"""Sends one request's items as calls within a provider's limits and joins what they answer.

Owns retries and the search for the item that a provider refuses. Knows of providers only that they
embed a batch or raise a `ProviderError`.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from functools import partial

import msgspec
import numpy as np

from embedway.batching import plan
from embedway.batching.retries import RetryBudget, wait_s
from embedway.core import vectors
from embedway.core.batch import Batch, Limits, Result
from embedway.core.provider_error import OF_AN_ITEM, ProviderError

ESTIMATE_SHARE = 0.7
"""Of a token limit that is filled where tokens are estimated: the estimate may be too low."""

MAX_SPLITS = 3
"""Of a batch that is too large, in halves; after that the declared limit is too wrong."""

MOST_TOKENS_PER_UNIT = 4
"""A character is at most four bytes, and a token at least one; nor does one token become more."""
MOST_PROMPT_TOKENS = 64
"""What a provider may put before each text."""

Call = Callable[[Batch], Awaitable[Result]]
OnCall = Callable[[str, str, ProviderError | None, float], None]
"""Told of each call: for which request, who was asked, the failure if any, and the seconds."""


class Embedded(msgspec.Struct, frozen=True, kw_only=True):
    """What all calls of one request answered together."""

    vectors: vectors.Vectors
    tokens: int
    exact: bool
    """Whether the tokens are as counted, by us or by the provider, not estimated."""


class Sender:
    """Sends batches; one for the process, for it holds the retry budget."""

    def __init__(
        self, on_call: OnCall = lambda _request_id, _provider, _error, _seconds: None
    ) -> None:
        """Takes whom to tell of each call."""
        self._budget = RetryBudget()
        self._on_call = on_call

    async def send(
        self,
        batch: Batch,
        call: Call,
        *,
        request_id: str,
        provider: str,
        limits: Limits,
        exact: bool,
        deadline_s: float,
    ) -> Embedded:
        """The vectors of all items of `batch`, in order, checked.

        Args:
            batch: Everything that was asked for.
            call: Embeds a batch within `limits`.
            request_id: For whom.
            provider: Who is asked.
            limits: Of a call.
            exact: Whether the batch's tokens are counted, not estimated.
            deadline_s: On the event loop's clock.

        Raises:
            ProviderError: A call failed for good; its `item` is an index in `batch`.
        """
        on_call = partial(self._on_call, request_id, provider)
        trip = _Trip(
            call,
            items=len(batch.items),
            budget=self._budget,
            deadline_s=deadline_s,
            on_call=on_call,
        )
        most = limits.max_tokens
        if most is not None and not exact:
            most = int(most * ESTIMATE_SHARE)
        cuts = list(plan.cut(batch.tokens, max_items=limits.max_items, max_tokens=most))
        if len(cuts) == 1:
            results = await trip.part(batch, 0)
        else:
            results = await _together(
                [(batch.part(start, end), start) for start, end in cuts],
                trip.part,
                at_once=limits.max_parallel,
            )
        return _joined(results, exact=exact)


Answered = tuple[Batch, Result]


async def _together(
    parts: Sequence[tuple[Batch, int]],
    send: Callable[[Batch, int], Awaitable[list[Answered]]],
    *,
    at_once: int,
) -> list[Answered]:
    """What `send` answers for each part, in order; the first failure ends the others."""
    gate = asyncio.Semaphore(at_once)

    async def one(part: Batch, offset: int) -> list[Answered]:
        async with gate:
            return await send(part, offset)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(part, offset)) for part, offset in parts]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [answered for task in tasks for answered in task.result()]


class _Trip:
    """The calls of one request."""

    def __init__(
        self,
        call: Call,
        *,
        items: int,
        budget: RetryBudget,
        deadline_s: float,
        on_call: Callable[[ProviderError | None, float], None],
    ) -> None:
        self._call = call
        self._items = items
        self._budget = budget
        self._deadline_s = deadline_s
        self._on_call = on_call

    async def part(self, batch: Batch, offset: int, splits: int = 0) -> list[Answered]:
        """What `batch`, which begins at item `offset` of the request, is answered with."""
        try:
            return [(batch, await self._tried(batch))]
        except ProviderError as error:
            if error.item is not None:
                error.item += offset
            elif len(batch.items) > 1 and error.kind == "batch_too_large":
                return await self._split(batch, offset, error, splits + 1)
            elif error.kind in OF_AN_ITEM:
                error.item = await self._at_fault(batch, offset)
            raise

    async def _tried(self, batch: Batch) -> Result:
        """One call, and again where that makes sense."""
        tried = 0
        with ExitStack() as retrying:
            while True:
                try:
                    return await self._once(batch)
                except ProviderError as error:
                    tried += 1
                    wait = wait_s(error, tried=tried, left_s=self._left_s())
                    if wait is None or (tried == 1 and not self._budget.left):
                        raise
                if tried == 1:
                    retrying.enter_context(self._budget.retry())
                await asyncio.sleep(wait)

    async def _split(
        self, batch: Batch, offset: int, error: ProviderError, splits: int
    ) -> list[Answered]:
        """Both halves of a batch that was too large, for limits are not always as documented.

        No retries, and not counted as such: they are instead of a call that was refused.
        """
        if splits > MAX_SPLITS:
            raise error
        middle = len(batch.items) // 2
        first = await self.part(batch.part(0, middle), offset, splits)
        rest = await self.part(batch.part(middle, len(batch.items)), offset + middle, splits)
        return first + rest

    async def _at_fault(self, batch: Batch, offset: int) -> int | None:
        """The item of a refused batch that is the reason; None if that cannot be found out.

        Each half is sent once; if one is refused and the other is not, the search goes on in it.
        If both are, or if only one was sent at all, the reason may as well be in the request.
        """
        if len(batch.items) == self._items == 1:
            return None
        try:
            # What is left of the time belongs to the answer.
            async with asyncio.timeout(self._left_s() / 2):
                start, end = 0, len(batch.items)
                other_passed = False
                while end - start > 1:
                    if not self._budget.left:
                        return None
                    middle = (start + end) // 2
                    with self._budget.retry():
                        if await self._refused(batch.part(start, middle)):
                            if not other_passed and await self._refused(batch.part(middle, end)):
                                return None
                            end = middle
                        else:
                            start = middle
                    other_passed = True
                return offset + start
        except (ProviderError, TimeoutError):
            return None

    async def _refused(self, batch: Batch) -> bool:
        try:
            await self._once(batch)
        except ProviderError as error:
            if error.kind not in OF_AN_ITEM:
                raise
            return True
        return False

    async def _once(self, batch: Batch) -> Result:
        began_s = time.perf_counter()
        try:
            with self._budget.call():
                result = await self._call(batch)
            vectors.check(result.vectors, items=len(batch.items), dimensions=batch.width)
        except ProviderError as error:
            self._on_call(error, time.perf_counter() - began_s)
            raise
        except asyncio.CancelledError:
            if self._left_s() <= 0:
                late = ProviderError("timeout", billed="maybe")
                self._on_call(late, time.perf_counter() - began_s)
            raise
        self._on_call(None, time.perf_counter() - began_s)
        return result

    def _left_s(self) -> float:
        return self._deadline_s - asyncio.get_running_loop().time()


def _joined(results: list[Answered], *, exact: bool) -> Embedded:
    parts = [result.vectors for _, result in results]
    if len({part.shape[1] for part in parts}) > 1:
        raise ProviderError("malformed", "vectors of different widths", billed="yes")
    told = [_told(batch, result) for batch, result in results]
    return Embedded(
        vectors=parts[0] if len(parts) == 1 else np.concatenate(parts),
        tokens=sum(
            sum(batch.tokens) if count is None else count
            for (batch, _), count in zip(results, told, strict=True)
        ),
        exact=exact or None not in told,
    )


def _told(batch: Batch, result: Result) -> int | None:
    """The provider's own count, which settles the bill, unless no text has so many tokens."""
    most = sum(MOST_TOKENS_PER_UNIT * len(item) + MOST_PROMPT_TOKENS for item in batch.items)
    tokens = result.tokens
    return tokens if tokens is not None and 0 < tokens <= most else None
