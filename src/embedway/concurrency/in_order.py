"""Works on many items at a time, and returns the results in the order of the items."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


async def map_in_order(
    items: AsyncIterable[Item],
    work: Callable[[Item], Awaitable[Result]],
    *,
    max_parallel: int,
    weigh: Callable[[Item], int],
    max_weight: int,
) -> AsyncGenerator[Result]:
    """Yield the result of `work` for each item, in order. An error of `work` ends it.

    Closing the generator cancels the work on items whose results it has not yielded.

    Args:
        items: The items. They are read only as far as there is room for them.
        work: Makes a result of an item.
        max_parallel: How many items to work on at a time.
        weigh: Returns how much room an item and its result need.
        max_weight: How much room there is for items whose results are not yielded yet. An item that
            needs more has all of it to itself.
    """
    free = asyncio.Semaphore(max_parallel)

    async def run(item: Item) -> Result:
        async with free:
            return await work(item)

    under_way: deque[tuple[asyncio.Future[Result], int]] = deque()
    total = 0
    try:
        async for item in items:
            weight = weigh(item)
            while under_way and (total + weight > max_weight or under_way[0][0].done()):
                yield await under_way[0][0]
                total -= under_way.popleft()[1]
            under_way.append((asyncio.ensure_future(run(item)), weight))
            total += weight
        while under_way:
            yield await under_way[0][0]
            under_way.popleft()
    finally:
        for future, _ in under_way:
            future.cancel()
        await asyncio.gather(*(future for future, _ in under_way), return_exceptions=True)
