"""All purses of this process: given back when nobody uses them, renewed while somebody does."""

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

REST_S = 2.0
"""What nobody took anything out of for so long is given back."""

_log = structlog.get_logger("embedway.budgets")


class SharedHold(BudgetHold):
    """A purse that requests wait for together."""

    __slots__ = ("lock", "refused", "refused_ms", "waiting", "waiting_nano_usd")

    def __init__(self) -> None:
        super().__init__()
        self.lock = asyncio.Lock()
        """Of whoever leases or gives back."""
        self.waiting = 0
        """Requests, for the lock."""
        self.waiting_nano_usd: NanoUsd = 0
        """What they cost."""
        self.refused: HoldLease | None = None
        """The last lease, if nothing was granted."""
        self.refused_ms = 0


class HoldCache:
    """By their subjects."""

    def __init__(
        self, holds: HoldStore, *, alerts: BudgetAlerts, now_ms: Callable[[], int]
    ) -> None:
        """Args name what it needs."""
        self._holds = holds
        self._alerts = alerts
        self._now_ms = now_ms
        self._purses: dict[Subject, SharedHold] = {}
        self._resting: asyncio.Task[None] | None = None
        self.get = self._purses.get
        """The purse of a subject, if it has one. There is one as long as anything is in use."""

    def get_or_create(self, subject: Subject) -> SharedHold:
        """The purse of a subject, an empty one if it has none."""
        purse = self._purses.get(subject)
        if purse is None:
            purse = self._purses[subject] = SharedHold()
        if self._resting is None or self._resting.done():
            self._resting = asyncio.ensure_future(self._rest_now_and_then())
        return purse

    async def end_interval(self) -> None:
        """Gives back what nobody took anything out of since the last time, and renews the rest.

        Raises:
            StorageUnavailable: It cannot be done now; nothing is relied on that may be lost.
        """
        now_ms = self._now_ms()
        idle: dict[Subject, SharedHold] = {}
        used: dict[Subject, SharedHold] = {}
        for subject, purse in self._purses.items():
            purse.end_interval()
            if purse.lock.locked():
                continue
            if purse.is_quiet and not purse.requests:
                idle[subject] = purse
            elif purse.needs_renewal(now_ms) or (purse.is_quiet and purse.free):
                used[subject] = purse
        if used:
            async with _locked(used.values()):
                await self._renew(used)
        if idle:
            async with _locked(idle.values()):
                left = {name: purse for name, purse in idle.items() if not purse.requests}
                await self._leave(left)
                for subject, purse in left.items():
                    if not purse.waiting:
                        self._purses.pop(subject, None)

    async def aclose(self) -> None:
        """Gives everything back, whatever is in use."""
        if self._resting:
            self._resting.cancel()
            await asyncio.wait([self._resting])
        # What is not given back lapses.
        with suppress(StorageUnavailable):
            await self._leave(self._purses)
        self._purses.clear()

    async def _renew(self, purses: Mapping[Subject, SharedHold]) -> None:
        unused: dict[Subject, NanoUsd] = {}
        for subject, purse in purses.items():
            unused[subject] = purse.free if purse.is_quiet else 0
            purse.free -= unused[subject]
        try:
            renewed = await self._holds.renew(unused)
        except StorageUnavailable as error:
            for subject, purse in purses.items():
                purse.restore(unused[subject], in_doubt=isinstance(error, CommitInDoubt))
            raise
        for subject, purse in purses.items():
            if subject in renewed:
                purse.extend(expires_ms=renewed[subject])
            else:
                purse.expire()

    async def _leave(self, purses: Mapping[Subject, SharedHold]) -> None:
        for purse in purses.values():
            purse.drain()
        if purses:
            await self._holds.release(purses.keys())
        for subject, purse in purses.items():
            if purse.unseen:
                purse.unseen = False
                self._alerts.check_later(subject, purse.budgets, at_ms=self._now_ms())

    async def _rest_now_and_then(self) -> None:
        while self._purses:
            await asyncio.sleep(REST_S)
            try:
                with suppress(StorageUnavailable):  # they are given back next time, or lapse
                    await self.end_interval()
            except Exception:  # noqa: BLE001  # a background task's top
                _log.exception("budgets not given back")


@asynccontextmanager
async def _locked(purses: Collection[SharedHold]) -> AsyncGenerator[None]:
    # Whoever has one of these locks waits for no other, so the order does not matter.
    async with AsyncExitStack() as stack:
        for purse in purses:
            await stack.enter_async_context(purse.lock)
        yield
