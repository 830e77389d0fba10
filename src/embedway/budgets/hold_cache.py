"""Keeps the budget holds of this process: renews those in use and returns the idle ones."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import structlog

from embedway.budgets.alerts import BudgetAlerts
from embedway.budgets.hold import BudgetHold
from embedway.budgets.hold_store import HoldLease, HoldStore
from embedway.core.errors import CommitInDoubt, StorageUnavailable
from embedway.core.money import NanoUsd
from embedway.core.subject import Subject

INTERVAL_S = 2.0
"""How often holds are looked at. One that served no request in an interval is returned."""

_log = structlog.get_logger("embedway.budgets")


class SharedHold(BudgetHold):
    """A budget hold with a lock, so that concurrent requests share one lease."""

    __slots__ = ("lock", "refused_at_ms", "refused_lease", "waiting_nano_usd", "waiting_requests")

    def __init__(self) -> None:
        super().__init__()
        self.lock = asyncio.Lock()
        """Held while the hold is leased, renewed or returned."""
        self.waiting_requests = 0
        """The number of requests that wait for the lock."""
        self.waiting_nano_usd: NanoUsd = 0
        """The cost of these requests."""
        self.refused_lease: HoldLease | None = None
        """The last lease, if it granted nothing."""
        self.refused_at_ms = 0


class HoldCache:
    """The budget holds of this process, by subject."""

    def __init__(
        self, holds: HoldStore, *, alerts: BudgetAlerts, now_ms: Callable[[], int]
    ) -> None:
        self._store = holds
        self._alerts = alerts
        self._now_ms = now_ms
        self._holds: dict[Subject, SharedHold] = {}
        self._interval_task: asyncio.Task[None] | None = None
        self.get = self._holds.get
        """Return the hold of a subject, or None. A hold stays as long as any of it is in use."""

    def get_or_create(self, subject: Subject) -> SharedHold:
        """Return the hold of a subject, a new and empty one if it has none."""
        hold = self._holds.get(subject)
        if hold is None:
            hold = self._holds[subject] = SharedHold()
        if self._interval_task is None or self._interval_task.done():
            self._interval_task = asyncio.ensure_future(self._run_intervals())
        return hold

    async def end_interval(self) -> None:
        """Return the holds that served no request in this interval, and renew the others.

        Raises:
            StorageUnavailable: The database failed. Amounts that it may have taken are not spent.
        """
        now_ms = self._now_ms()
        idle: dict[Subject, SharedHold] = {}
        used: dict[Subject, SharedHold] = {}
        for subject, hold in self._holds.items():
            hold.end_interval()
            if hold.lock.locked():
                continue
            if hold.is_quiet and not hold.requests:
                idle[subject] = hold
            elif hold.needs_renewal(now_ms) or (hold.is_quiet and hold.free):
                used[subject] = hold
        if used:
            async with _locked(used.values()):
                await self._renew(used)
        if idle:
            async with _locked(idle.values()):
                still_idle = {name: hold for name, hold in idle.items() if not hold.requests}
                await self._release(still_idle)
                for subject, hold in still_idle.items():
                    if not hold.waiting_requests:
                        self._holds.pop(subject, None)

    async def aclose(self) -> None:
        """Return all holds to the database, including amounts still in use."""
        if self._interval_task:
            self._interval_task.cancel()
            await asyncio.wait([self._interval_task])
        # A hold that is not returned expires.
        with suppress(StorageUnavailable):
            await self._release(self._holds)
        self._holds.clear()

    async def _renew(self, holds: Mapping[Subject, SharedHold]) -> None:
        unused: dict[Subject, NanoUsd] = {}
        for subject, hold in holds.items():
            unused[subject] = hold.free if hold.is_quiet else 0
            hold.free -= unused[subject]
        try:
            renewed = await self._store.renew(unused)
        except StorageUnavailable as error:
            for subject, hold in holds.items():
                hold.restore(unused[subject], in_doubt=isinstance(error, CommitInDoubt))
            raise
        for subject, hold in holds.items():
            if subject in renewed:
                hold.extend(expires_ms=renewed[subject])
            else:
                hold.expire()

    async def _release(self, holds: Mapping[Subject, SharedHold]) -> None:
        for hold in holds.values():
            hold.drain()
        if holds:
            await self._store.release(holds.keys())
        for subject, hold in holds.items():
            if hold.has_new_spending:
                hold.has_new_spending = False
                self._alerts.check_later(subject, hold.budgets, at_ms=self._now_ms())

    async def _run_intervals(self) -> None:
        while self._holds:
            await asyncio.sleep(INTERVAL_S)
            try:
                with suppress(StorageUnavailable):  # the next interval tries again
                    await self.end_interval()
            except Exception:  # noqa: BLE001  # a background task's top
                _log.exception("budgets not given back")


@asynccontextmanager
async def _locked(holds: Collection[SharedHold]) -> AsyncGenerator[None]:
    # No other task waits for one of these locks while it has another: the order does not matter.
    async with AsyncExitStack() as stack:
        for hold in holds:
            await stack.enter_async_context(hold.lock)
        yield
