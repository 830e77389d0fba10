"""Works on batches that no other process works on.

Any process of any replica takes any batch. One that dies leaves its batches to the others, or to
itself after a restart, once its leases have ended.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog

from embedway.batches.job import BatchJob
from embedway.batches.run import BatchRun
from embedway.batches.store import BatchStore
from embedway.core.errors import FilesUnavailable, StorageUnavailable
from embedway.files.store import FileStore

MAX_RUNS = 8
"""The most batches that a process works on at a time."""
MAX_PROJECT_RUNS = 2
"""The most of one project, whose batches may wait for its rate limits all day."""
POLL_S = 2.0
"""How often to look for batches that other processes have left."""
SWEEP_S = 60.0
"""How often to look for files that have expired."""
CLOSE_S = 10.0
"""How long shutdown waits for the lines under way."""

_log = structlog.get_logger("embedway.batches")


class BatchRunner:
    """Works on batches in the background."""

    def __init__(
        self, store: BatchStore, files: FileStore, *, open_run: Callable[[BatchJob], BatchRun]
    ) -> None:
        """Start nothing yet; `start` does.

        Args:
            store: The batches.
            files: The files that expire.
            open_run: Makes the work on a batch that was claimed.
        """
        self._store = store
        self._files = files
        self._open_run = open_run
        self._runs: dict[BatchRun, asyncio.Task[None]] = {}
        self._loops: list[asyncio.Task[None]] = []
        self._due = asyncio.Event()

    def start(self) -> None:
        """Begin to look for work."""
        self._loops = [
            asyncio.create_task(self._repeat(self._claim, every_s=POLL_S, due=self._due)),
            asyncio.create_task(self._repeat(self._sweep, every_s=SWEEP_S, due=asyncio.Event())),
        ]

    def wake(self) -> None:
        """Look for work now."""
        self._due.set()

    @property
    def running(self) -> int:
        """How many batches this process works on."""
        return len(self._runs)

    async def aclose(self) -> None:
        """Finish the lines under way, store how far each batch has come, and leave the rest."""
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        for run in self._runs:
            run.stop()
        if self._runs:
            _, late = await asyncio.wait(self._runs.values(), timeout=CLOSE_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _claim(self) -> None:
        while len(self._runs) < MAX_RUNS:
            counts = Counter(run.batch.project_id for run in self._runs)
            busy = [id for id, count in counts.items() if count >= MAX_PROJECT_RUNS]
            batch = await self._store.claim(without=busy)
            if batch is None:
                return
            run = self._open_run(batch)
            task = asyncio.create_task(run.run())
            self._runs[run] = task
            task.add_done_callback(lambda _, run=run: self._forget(run))

    def _forget(self, run: BatchRun) -> None:
        del self._runs[run]
        self.wake()

    async def _sweep(self) -> None:
        while await self._files.remove_expired():
            pass

    async def _repeat(
        self, step: Callable[[], Awaitable[None]], *, every_s: float, due: asyncio.Event
    ) -> None:
        """Run `step` again and again: when it is due, and after a pause."""
        while True:
            due.clear()
            try:
                await step()
            except (StorageUnavailable, FilesUnavailable):
                pass  # it is logged where it is noticed
            except Exception:  # noqa: BLE001  # the top of a background task
                _log.exception("batches broke")
            # At random, so that many replicas do not ask together.
            with suppress(TimeoutError):
                async with asyncio.timeout(every_s * random.uniform(0.8, 1.2)):
                    await due.wait()
