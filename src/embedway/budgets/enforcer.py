"""What may still be spent: parts of budgets that this process holds, and takes requests out of.

The usual request is paid out of what is held already, without I/O. Only when that is used up, more
is leased of the database, once for all who wait for it. What nobody uses is given back soon.
"""

import asyncio
from collections.abc import Callable, Sequence

from embedway.budgets.alerts import BudgetAlerts, OnAlert
from embedway.budgets.hold_cache import HoldCache, SharedHold
from embedway.budgets.hold_store import HoldStore
from embedway.budgets.refusal import budget_error, first_reset_ms, is_exhausted
from embedway.concurrency.background import BackgroundTasks
from embedway.core.budget import Budget
from embedway.core.errors import CommitInDoubt, StorageUnavailable
from embedway.core.money import NanoUsd
from embedway.core.subject import Subject

BudgetsOf = Sequence[tuple[Subject, tuple[Budget, ...]]]
"""Whose budgets a request is to be within."""

AHEAD = 16
"""It is leased for so many more requests, or what was taken in so many times `REST_S`."""
KNOWN_MS = 1_000
"""For so long a budget that is spent is refused without asking again."""
KNOWN_SOON_MS = 100
"""Likewise one of which the rest is reserved."""


class BudgetEnforcer:
    """Reserves the cost of requests; one for the process."""

    def __init__(
        self,
        holds: HoldStore,
        *,
        now_ms: Callable[[], int],
        on_alert: OnAlert = lambda _subject, _budget, _percent, _spent: None,
    ) -> None:
        self._holds = holds
        self._now_ms = now_ms
        self._alerts = BudgetAlerts(holds, on_alert)
        self._purses = HoldCache(holds, alerts=self._alerts, now_ms=now_ms)
        self._background = BackgroundTasks()

    def check(self, owed: BudgetsOf) -> None:
        """Refuses a request that costs anything, if it is known to be refused, without any I/O.

        Raises:
            BudgetExceeded: A budget has nothing left.
        """
        for subject, budgets in owed:
            purse = self._purses.get(subject)
            if purse and purse.free <= 0 and purse.refused and is_exhausted(purse.refused, 1):
                self._refuse_known(subject, purse, budgets, cost_nano_usd=1)

    async def reserve(
        self, owed: BudgetsOf, *, cost_nano_usd: NanoUsd, at_ms: int | None = None
    ) -> None:
        """Takes the cost out of all budgets, or, if one has not so much left, out of none.

        What costs nothing always passes.

        Args:
            owed: The budgets.
            cost_nano_usd: What the request may cost.
            at_ms: When it had been read, which says in which window it counts; now if not given.

        Raises:
            BudgetExceeded: One has not so much left.
            StorageUnavailable: What is left cannot be known.
        """
        if cost_nano_usd <= 0:
            return
        now_ms = self._now_ms()
        at_ms = now_ms if at_ms is None else at_ms
        purses: list[SharedHold] = []
        for subject, budgets in owed:
            purse = self._purses.get(subject)
            if purse is None or not purse.covers(
                cost_nano_usd, budgets, at_ms=at_ms, now_ms=now_ms
            ):
                break
            purses.append(purse)
        else:
            for purse in purses:
                purse.reserve(cost_nano_usd)
            return
        await self._take_in_full(owed, cost_nano_usd, at_ms)

    def settle(
        self, owed: BudgetsOf, *, reserved_nano_usd: NanoUsd, spent_nano_usd: NanoUsd
    ) -> None:
        """Puts back what was reserved and not spent; what was spent is in the ledger by now."""
        if not reserved_nano_usd and not spent_nano_usd:
            return
        for subject, _ in owed:
            # There is none where nothing was reserved, nor then anything held.
            if purse := self._purses.get(subject):
                purse.settle(reserved_nano_usd=reserved_nano_usd, spent_nano_usd=spent_nano_usd)

    async def end_interval(self) -> None:
        """See `embedway.budgets.hold_cache.HoldCache.end_interval`, which is done all the time."""
        await self._purses.end_interval()

    async def aclose(self) -> None:
        """Give everything back, once nothing is under way."""
        await self._background.close()
        await self._purses.aclose()
        await self._alerts.aclose()

    async def _take_in_full(self, owed: BudgetsOf, cost_nano_usd: NanoUsd, at_ms: int) -> None:
        """Takes it to the end even if the request is cancelled, then puts it back."""

        def undo(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and task.exception() is None:
                self.settle(owed, reserved_nano_usd=cost_nano_usd, spent_nano_usd=0)

        task = self._background.schedule(self._take(owed, cost_nano_usd, at_ms))
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(undo)
            raise

    async def _take(self, owed: BudgetsOf, cost_nano_usd: NanoUsd, at_ms: int) -> None:
        taken: list[tuple[Subject, tuple[Budget, ...]]] = []
        try:
            for subject, budgets in owed:
                await self._take_of(subject, budgets, cost_nano_usd, at_ms)
                taken.append((subject, budgets))
        except BaseException:
            self.settle(taken, reserved_nano_usd=cost_nano_usd, spent_nano_usd=0)
            raise

    async def _take_of(
        self, subject: Subject, budgets: tuple[Budget, ...], cost_nano_usd: NanoUsd, at_ms: int
    ) -> None:
        purse = self._purses.get_or_create(subject)
        purse.waiting += 1
        purse.waiting_nano_usd += cost_nano_usd
        try:
            async with purse.lock:
                if not purse.covers(cost_nano_usd, budgets, at_ms=at_ms, now_ms=self._now_ms()):
                    self._refuse_known(subject, purse, budgets, cost_nano_usd=cost_nano_usd)
                    await self._lease(subject, purse, budgets, cost_nano_usd, at_ms)
                purse.reserve(cost_nano_usd)
        finally:
            purse.waiting -= 1
            purse.waiting_nano_usd -= cost_nano_usd

    async def _lease(
        self,
        subject: Subject,
        purse: SharedHold,
        budgets: tuple[Budget, ...],
        cost_nano_usd: NanoUsd,
        at_ms: int,
    ) -> None:
        """Puts at least the cost into the purse, which nobody takes from meanwhile."""
        late = purse.is_late(at_ms)
        in_use_before = purse.in_use
        ahead = AHEAD * max(cost_nano_usd, purse.pace)
        unused = purse.drain()
        try:
            lease = await self._holds.lease(
                subject,
                budgets,
                at_ms=at_ms,
                needed=cost_nano_usd,
                # Requests to come are not of the window of one that is late.
                wanted=0 if late else purse.waiting_nano_usd - cost_nano_usd + ahead,
                unused=unused,
            )
        except StorageUnavailable as error:
            purse.restore(unused, in_doubt=isinstance(error, CommitInDoubt))
            raise
        purse.refill(lease, budgets=budgets, in_use_before=in_use_before)
        if not late:
            self._alerts.check(subject, lease.spent, at_ms=lease.at_ms)
        purse.refused = None if lease.granted_nano_usd else lease
        if purse.refused:
            purse.refused_ms = self._now_ms()
            raise budget_error(subject, lease, cost_nano_usd=cost_nano_usd)

    def _refuse_known(
        self,
        subject: Subject,
        purse: SharedHold,
        budgets: tuple[Budget, ...],
        *,
        cost_nano_usd: NanoUsd,
    ) -> None:
        """Refuses what the last lease would be refused, as was just found."""
        lease, now_ms = purse.refused, self._now_ms()
        if (
            lease is None
            or purse.budgets != budgets
            or now_ms >= first_reset_ms(lease.spent, lease.at_ms)
        ):
            return
        spent = is_exhausted(lease, cost_nano_usd)
        known_ms = KNOWN_MS if spent else KNOWN_SOON_MS
        left = min(budget.amount_nano_usd - each for budget, each in lease.spent.items())
        left -= lease.held_nano_usd
        if now_ms - purse.refused_ms < known_ms and cost_nano_usd - purse.free > left:
            raise budget_error(subject, lease, cost_nano_usd=cost_nano_usd)
