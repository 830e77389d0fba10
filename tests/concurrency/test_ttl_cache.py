"""Lookups that callers share."""

import asyncio
import gc
from typing import Any

import pytest

from embedway.concurrency.ttl_cache import TTLCache
from embedway.core.errors import StorageUnavailable


def test_a_failure_that_nobody_waits_for() -> None:
    """A lookup whose only caller has left may fail, and nothing is said of it."""
    said: list[dict[str, Any]] = []

    async def run() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))
        goes_on = asyncio.Event()

        async def find(_: str) -> str:
            await goes_on.wait()
            raise StorageUnavailable("The database is away.")

        cache = TTLCache(find)
        caller = asyncio.ensure_future(cache.get("a"))
        await asyncio.sleep(0)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        goes_on.set()
        await asyncio.sleep(0.01)
        del cache, caller
        gc.collect()

    asyncio.run(run())
    assert said == []
