"""Counts refused requests, so that operators can see whose requests are refused and why.

Refusing must cost next to nothing, so requests are counted in memory, and the counts are written
every few seconds and at shutdown.
"""

import asyncio
from collections import Counter
from collections.abc import Callable

from embedway.core.errors import CommitInDoubt, StorageUnavailable
from embedway.core.refusals import QUARTER_MS, RefusalCount
from embedway.ledger.refusals import RefusalStore

WRITE_EVERY_S = 2.0
"""How often counts are written, in seconds. A killed process loses those since the last time."""
MAX_WAITING = 50_000
"""The most counts to keep while the database is unavailable. Further kinds are not counted."""


class RefusalCounts:
    """The refused requests that this process has counted but not yet written."""

    def __init__(
        self,
        store: RefusalStore,
        *,
        now_ms: Callable[[], int],
        write_every_s: float = WRITE_EVERY_S,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        self._store = store
        self._now_ms = now_ms
        self._write_every_s = write_every_s
        self._max_waiting = max_waiting
        self._counts = Counter[RefusalCount]()
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Task[None] | None = None

    def add(self, reason: str, *, project_id: str = "", key_id: str = "") -> None:
        """Count one refused request. Leave the ids empty if its key was not recognised."""
        now_ms = self._now_ms()
        refusal = RefusalCount(
            at_ms=now_ms - now_ms % QUARTER_MS, project_id=project_id, key_id=key_id, reason=reason
        )
        if refusal in self._counts or len(self._counts) < self._max_waiting:
            self._counts[refusal] += 1
        self._schedule()

    async def aclose(self) -> None:
        """Write all counts."""
        if self._timer:
            self._timer.cancel()
        if self._writing:
            await asyncio.wait([self._writing])
        await self._write()

    def _schedule(self) -> None:
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._write_every_s, self._begin)

    def _begin(self) -> None:
        self._writing = asyncio.ensure_future(self._write_and_go_on())

    async def _write_and_go_on(self) -> None:
        await self._write()
        self._timer = None
        if self._counts:
            self._schedule()

    async def _write(self) -> None:
        counts, self._counts = self._counts, Counter[RefusalCount]()
        if not counts:
            return
        try:
            await self._store.add(counts)
        except CommitInDoubt:
            pass  # Losing some is better than counting any twice.
        except StorageUnavailable:
            # Add what was counted meanwhile, so that nothing is lost.
            counts.update(self._counts)
            self._counts = counts
