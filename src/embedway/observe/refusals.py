"""Counts refused requests, so that an operator can see who is being refused and why.

A refusal has to cost next to nothing, so it is counted in memory; the sums are written every few
seconds and at the end. Knows neither HTTP nor SQL.
"""

import asyncio
from collections import Counter
from collections.abc import Callable

from embedway.core.errors import CommitInDoubt, StorageUnavailable
from embedway.core.refusals import QUARTER_MS, RefusalCount
from embedway.ledger.refusals import RefusalStore

WRITE_EVERY_S = 2.0
"""How often sums are written. A process that is killed loses the counts since the last time."""
MAX_WAITING = 50_000
"""The most sums to keep while the database is away. Refusals of further kinds are not counted."""


class RefusalCounts:
    """The refusals that this process has counted and not yet written."""

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
        """Count one refused request; its ids are empty if its key was not recognised."""
        now_ms = self._now_ms()
        refusal = RefusalCount(
            at_ms=now_ms - now_ms % QUARTER_MS, project_id=project_id, key_id=key_id, reason=reason
        )
        if refusal in self._counts or len(self._counts) < self._max_waiting:
            self._counts[refusal] += 1
        self._schedule()

    async def aclose(self) -> None:
        """Write what is counted."""
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
            pass  # To lose some is better than to count any twice.
        except StorageUnavailable:
            # Those of the meantime come on top: nothing is lost while the database is away.
            counts.update(self._counts)
            self._counts = counts
