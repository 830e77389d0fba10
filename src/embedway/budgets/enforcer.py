"""Reserves the cost of requests from the budget holds of this process.

Most requests fit into a hold and need no I/O. When a hold is used up, one lease from the database
serves all waiting requests. Unused holds are soon returned.
"""

import asyncio
from collections.abc import Callable, Sequence

from embedway.budgets.alerts import BudgetAlerts, OnAlert, WriteAlert
from embedway.budgets.hold_cache import HoldCache, SharedHold
from embedway.budgets.hold_store import HoldStore
from embedway.budgets.refusal import budget_error, first_reset_ms, is_exhausted
from embedway.concurrency.background import BackgroundTasks
from embedway.core.budget import Budget
from embedway.core.errors import CommitInDoubt, StorageUnavailable
from embedway.core.money import NanoUsd
from embedway.core.subject import Subject

SubjectBudgets = Sequence[tuple[Subject, tuple[Budget, ...]]]
"""The budgets that a request must fit into, by subject."""

LEASE_AHEAD = 16
"""Lease for this many more requests, or this many times the spending of one interval."""
EXHAUSTED_TTL_MS = 1_000
"""How long to refuse requests on an exhausted budget without asking the database."""
RESERVED_TTL_MS = 100
"""How long to refuse requests without asking the database if the rest of a budget is reserved."""


class BudgetEnforcer:
    """Keeps the requests of this process within their budgets."""

    def __init__(
        self,
        holds: HoldStore,
        *,
        now_ms: Callable[[], int],
        on_alert: OnAlert = lambda _alert: None,
        write_alert: WriteAlert = lambda _connection, _alert: None,
    ) -> None:
        self._store = holds
        self._now_ms = now_ms
        self._alerts = BudgetAlerts(holds, on_alert, write_alert)
        self._holds = HoldCache(holds, alerts=self._alerts, now_ms=now_ms)
        self._background = BackgroundTasks()

    def check(self, budgets: SubjectBudgets) -> None:
        """Refuse a request that costs anything, without I/O, if a budget is known to be exhausted.

        Raises:
            BudgetExceeded: A budget has nothing left.
        """
        for subject, subject_budgets in budgets:
            hold = self._holds.get(subject)
            if (
                hold
                and hold.free <= 0
                and hold.refused_lease
                and is_exhausted(hold.refused_lease, 1)
            ):
                self._refuse_again(subject, hold, subject_budgets, cost_nano_usd=1)

    async def reserve(
        self, budgets: SubjectBudgets, *, cost_nano_usd: NanoUsd, at_ms: int | None = None
    ) -> None:
        """Reserve the most that a request may cost from all budgets, or from none.

        A cost of 0 always fits. The request counts in the windows that contain `at_ms`, the time
        when it was read, in ms since the epoch; now if None.

        Raises:
            BudgetExceeded: A budget has too little left.
            StorageUnavailable: The database cannot say what is left.
        """
        if cost_nano_usd <= 0:
            return
        now_ms = self._now_ms()
        at_ms = now_ms if at_ms is None else at_ms
        holds: list[SharedHold] = []
        for subject, subject_budgets in budgets:
            hold = self._holds.get(subject)
            if hold is None or not hold.covers(
                cost_nano_usd, subject_budgets, at_ms=at_ms, now_ms=now_ms
            ):
                break
            holds.append(hold)
        else:
            for hold in holds:
                hold.reserve(cost_nano_usd)
            return
        await self._reserve_despite_cancellation(budgets, cost_nano_usd, at_ms)

    def settle(
        self, budgets: SubjectBudgets, *, reserved_nano_usd: NanoUsd, spent_nano_usd: NanoUsd
    ) -> None:
        """Free what was reserved and not spent. Call this after the ledger has what was spent."""
        if not reserved_nano_usd and not spent_nano_usd:
            return
        for subject, _ in budgets:
            # Without a hold, nothing was reserved.
            if hold := self._holds.get(subject):
                hold.settle(reserved_nano_usd=reserved_nano_usd, spent_nano_usd=spent_nano_usd)

    async def end_interval(self) -> None:
        """End the interval of all holds now, as `HoldCache` does by itself every `INTERVAL_S`."""
        await self._holds.end_interval()

    async def aclose(self) -> None:
        """Wait for reservations in progress, then return all holds to the database."""
        await self._background.close()
        await self._holds.aclose()
        await self._alerts.aclose()

    async def _reserve_despite_cancellation(
        self, budgets: SubjectBudgets, cost_nano_usd: NanoUsd, at_ms: int
    ) -> None:
        """Finish the reservation even if the request is cancelled, then undo it."""

        def undo(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and task.exception() is None:
                self.settle(budgets, reserved_nano_usd=cost_nano_usd, spent_nano_usd=0)

        task = self._background.schedule(self._reserve_all(budgets, cost_nano_usd, at_ms))
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(undo)
            raise

    async def _reserve_all(
        self, budgets: SubjectBudgets, cost_nano_usd: NanoUsd, at_ms: int
    ) -> None:
        done = 0
        try:
            for subject, subject_budgets in budgets:
                await self._reserve_one(subject, subject_budgets, cost_nano_usd, at_ms)
                done += 1
        except BaseException:
            self.settle(budgets[:done], reserved_nano_usd=cost_nano_usd, spent_nano_usd=0)
            raise

    async def _reserve_one(
        self, subject: Subject, budgets: tuple[Budget, ...], cost_nano_usd: NanoUsd, at_ms: int
    ) -> None:
        hold = self._holds.get_or_create(subject)
        hold.waiting_requests += 1
        hold.waiting_nano_usd += cost_nano_usd
        try:
            async with hold.lock:
                if not hold.covers(cost_nano_usd, budgets, at_ms=at_ms, now_ms=self._now_ms()):
                    self._refuse_again(subject, hold, budgets, cost_nano_usd=cost_nano_usd)
                    await self._lease(subject, hold, budgets, cost_nano_usd, at_ms)
                hold.reserve(cost_nano_usd)
        finally:
            hold.waiting_requests -= 1
            hold.waiting_nano_usd -= cost_nano_usd

    async def _lease(
        self,
        subject: Subject,
        hold: SharedHold,
        budgets: tuple[Budget, ...],
        cost_nano_usd: NanoUsd,
        at_ms: int,
    ) -> None:
        """Lease at least the cost into `hold`, whose lock the caller has."""
        late = hold.is_late(at_ms)
        in_use_before = hold.in_use
        ahead = LEASE_AHEAD * max(cost_nano_usd, hold.pace)
        unused = hold.drain()
        try:
            lease = await self._store.lease(
                subject,
                budgets,
                at_ms=at_ms,
                minimum=cost_nano_usd,
                # The next requests belong to later windows than a late one.
                extra=0 if late else hold.waiting_nano_usd - cost_nano_usd + ahead,
                unused=unused,
            )
        except StorageUnavailable as error:
            hold.restore(unused, in_doubt=isinstance(error, CommitInDoubt))
            raise
        hold.refill(lease, budgets=budgets, in_use_before=in_use_before)
        if not late:
            self._alerts.check(subject, lease.spending, at_ms=lease.at_ms)
        hold.refused_lease = None if lease.granted_nano_usd else lease
        if hold.refused_lease:
            hold.refused_at_ms = self._now_ms()
            if not late:
                self._alerts.report_exhausted(
                    subject, lease.spending, cost_nano_usd=cost_nano_usd, at_ms=lease.at_ms
                )
            raise budget_error(subject, lease, cost_nano_usd=cost_nano_usd)

    def _refuse_again(
        self,
        subject: Subject,
        hold: SharedHold,
        budgets: tuple[Budget, ...],
        *,
        cost_nano_usd: NanoUsd,
    ) -> None:
        """Raise `BudgetExceeded` if a recent lease was refused and this cost would be too."""
        lease, now_ms = hold.refused_lease, self._now_ms()
        if (
            lease is None
            or hold.budgets != budgets
            or now_ms >= first_reset_ms(lease.spending, lease.at_ms)
        ):
            return
        ttl_ms = EXHAUSTED_TTL_MS if is_exhausted(lease, cost_nano_usd) else RESERVED_TTL_MS
        left = min(budget.amount_nano_usd - spent for budget, spent in lease.spending.items())
        left -= lease.reserved_nano_usd
        if now_ms - hold.refused_at_ms < ttl_ms and cost_nano_usd - hold.free > left:
            raise budget_error(subject, lease, cost_nano_usd=cost_nano_usd)
