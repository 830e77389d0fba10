"""Work on many items at a time, with results in order."""

import asyncio
import random
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedway.concurrency.in_order import map_in_order


async def counted(most: int) -> AsyncGenerator[int]:
    for number in range(most):
        yield number


@given(
    st.lists(st.integers(1, 9), max_size=30), st.integers(1, 5), st.integers(1, 20), st.randoms()
)
def test_results_come_in_order(
    weights: list[int], parallel: int, room: int, chance: random.Random
) -> None:
    """Whatever ends first, results come in order, and no more is under way than allowed."""
    working: set[int] = set()
    held: dict[int, int] = {}

    async def work(item: int) -> int:
        working.add(item)
        assert len(working) <= parallel
        for _ in range(chance.randrange(4)):
            await asyncio.sleep(0)
        working.remove(item)
        return -item

    async def items() -> AsyncGenerator[int]:
        for number, weight in enumerate(weights):
            yield number
            held[number] = weight
            assert sum(held.values()) <= room or len(held) == 1

    async def run() -> list[int]:
        results = []
        async for result in map_in_order(
            items(), work, max_parallel=parallel, weigh=weights.__getitem__, max_weight=room
        ):
            held.pop(-result, None)
            results.append(result)
        return results

    assert asyncio.run(run()) == [-number for number in range(len(weights))]


def test_closing_cancels_the_rest() -> None:
    """Who takes no more results leaves no work behind."""
    cancelled: list[int] = []

    async def work(item: int) -> int:
        if item == 0:
            return 0
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(item)
            raise
        return item

    async def run() -> None:
        results = map_in_order(counted(9), work, max_parallel=3, weigh=lambda _: 1, max_weight=5)
        async with aclosing(results):
            assert await anext(results) == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(run())
    assert cancelled == [1, 2, 3]


def test_an_error_ends_it() -> None:
    """An error of one item is raised in its turn, after the results before it."""

    async def work(item: int) -> int:
        return 6 // (2 - item)

    async def run() -> list[int]:
        results = map_in_order(counted(9), work, max_parallel=9, weigh=lambda _: 1, max_weight=9)
        found = [await anext(results), await anext(results)]
        with pytest.raises(ZeroDivisionError):
            await anext(results)
        return found

    assert asyncio.run(run()) == [3, 6]
