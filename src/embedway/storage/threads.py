"""Work on the database in threads, waited for no longer than a client may be kept waiting.

The database's own timeouts end what is slow; this is for one that stands still altogether, as a
machine does that is being moved.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar

from embedway.core.errors import StorageUnavailable

WAIT_S = 15.0
"""Longer than a free connection, a lock and a statement may take one after the other."""

Done = TypeVar("Done")


async def in_time(threads: Executor, work: Callable[[], Done], *, told: str) -> Done:
    """What `work` returns, done in one of `threads`.

    Raises:
        StorageUnavailable: It takes too long; says what is `told`.
    """
    try:
        async with asyncio.timeout(WAIT_S):
            return await asyncio.get_running_loop().run_in_executor(threads, work)
    except TimeoutError:
        raise StorageUnavailable(told) from None
