"""Work that takes longer than its limit is cancelled; other work is not."""

import asyncio

import pytest

from embedway.concurrency.time_limit import TimeLimit


def test_what_is_late_is_cancelled_and_the_rest_goes_on() -> None:
    async def work(limit: TimeLimit, start_s: float, seconds: float) -> str:
        await asyncio.sleep(start_s)
        try:
            with limit.limit():
                await asyncio.sleep(seconds)
        except TimeoutError:
            return "late"
        return "done"

    async def run() -> list[str]:
        limit = TimeLimit(0.2)
        works = [(0, 0), (0, 60), (0.05, 0), (0.1, 60), (0.15, 0.01), (0.6, 0), (0.6, 60)]
        return await asyncio.gather(*(work(limit, *each) for each in works))

    assert asyncio.run(run()) == ["done", "late", "done", "late", "done", "done", "late"]


def test_a_task_may_go_on_after_its_work_was_late() -> None:
    async def run() -> int:
        with pytest.raises(TimeoutError), TimeLimit(0.01).limit():
            await asyncio.sleep(60)
        await asyncio.sleep(0.01)
        return asyncio.current_task().cancelling()

    assert asyncio.run(run()) == 0


def test_a_limit_within_another() -> None:
    ended: list[str] = []

    async def work() -> None:
        with TimeLimit(0.01).limit():
            try:
                with TimeLimit(60).limit():
                    await asyncio.sleep(60)
            except TimeoutError:
                ended.append("the inner one")

    with pytest.raises(TimeoutError):
        asyncio.run(work())
    assert not ended


def test_a_cancelled_task_stays_cancelled() -> None:
    """Even if its time is over in the same moment."""

    async def work() -> None:
        with TimeLimit(0.01).limit():
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                asyncio.current_task().cancel()
                raise

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(work())


def test_an_error_of_the_work_is_its_own() -> None:
    async def run() -> None:
        with pytest.raises(KeyError), TimeLimit(60).limit():
            raise KeyError

    asyncio.run(run())
