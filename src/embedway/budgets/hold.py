"""Accounts for the budget of one subject that this process has reserved from the database.

It knows neither the database nor the event loop.
"""

from collections.abc import Sequence

from embedway.budgets.hold_store import HoldLease
from embedway.core.budget import Budget, budget_window
from embedway.core.money import NanoUsd

MARGIN_MS = 15_000
"""Stop spending from a hold this long before it expires."""
RENEW_MS = 40_000
"""Renew a hold this long before it expires."""


class BudgetHold:
    """Budget that this process has reserved from the database and may spend without asking it.

    The database stores one number per hold. This class splits it into `free` and `in_use`; their
    sum never exceeds the database's number, so two processes cannot spend the same money.
    Amounts are nano-USD, times are ms since the epoch.
    """

    __slots__ = (
        "_expires_ms",
        "_previous_reserved",
        "_reserved",
        "_unbacked",
        "_windows_start_ms",
        "budgets",
        "free",
        "has_new_spending",
        "in_use",
        "is_quiet",
        "requests",
    )

    def __init__(self) -> None:
        self.budgets: Sequence[Budget] = ()
        """The subject's budgets when the hold was leased."""
        self.free: NanoUsd = 0
        """The amount to reserve from. Negative if requests spent more than they reserved."""
        self.in_use: NanoUsd = 0
        """The amount reserved by requests in progress."""
        self.requests = 0
        """The number of requests in progress."""
        self.is_quiet = False
        """Whether nothing was reserved in the last interval."""
        self.has_new_spending = False
        """Whether anything was spent since the last lease."""
        self._expires_ms = 0
        self._windows_start_ms = 0
        # The share of `in_use` that the database released because this process stood still.
        self._unbacked: NanoUsd = 0
        self._reserved: NanoUsd = 0
        self._previous_reserved: NanoUsd = 0

    def covers(
        self, cost_nano_usd: NanoUsd, budgets: Sequence[Budget], *, at_ms: int, now_ms: int
    ) -> bool:
        """Return whether a request that was read at `at_ms` fits into this hold.

        A request from before the hold's windows does not, for these may be exhausted. One from
        after them does, because every hold counts as spent from the start of a new window.
        """
        return (
            self.free >= cost_nano_usd
            and now_ms < self._expires_ms - MARGIN_MS
            and at_ms >= self._windows_start_ms
            and (self.budgets is budgets or self.budgets == budgets)
        )

    def is_late(self, at_ms: int) -> bool:
        """Return whether a request was read before the hold's windows began."""
        return at_ms < self._windows_start_ms

    def reserve(self, cost_nano_usd: NanoUsd) -> None:
        """Reserve the cost of one request."""
        self.free -= cost_nano_usd
        self.in_use += cost_nano_usd
        self.requests += 1
        self._reserved += cost_nano_usd

    def settle(self, *, reserved_nano_usd: NanoUsd, spent_nano_usd: NanoUsd) -> None:
        """End one request. The ledger has already taken what it spent from the database's hold."""
        # Nobody knows which requests the unbacked amount belongs to, so the first to end lose it:
        # `free` may be too low until the last one ends, but never too high.
        unbacked = min(self._unbacked, reserved_nano_usd)
        self._unbacked -= unbacked
        self.in_use -= reserved_nano_usd
        self.requests -= reserved_nano_usd > 0
        self.free += reserved_nano_usd - unbacked - spent_nano_usd
        self.has_new_spending = self.has_new_spending or spent_nano_usd > 0

    @property
    def pace(self) -> NanoUsd:
        """The amount reserved in this interval or in the last one, whichever is more."""
        return max(self._reserved, self._previous_reserved)

    def drain(self) -> NanoUsd | None:
        """Take out what is free, to return it; None if no request is in progress.

        The hold covers nothing until `refill`.
        """
        free, self.free, self._expires_ms = self.free, 0, 0
        return free if self.requests else None

    def restore(self, unused: NanoUsd | None, *, in_doubt: bool) -> None:
        """Put back what was drained, after the database failed to take it.

        Args:
            unused: The result of `drain`; negative if requests spent more than they reserved.
            in_doubt: Whether the database may have taken it, so that others may spend it.
        """
        self.free += min(0, unused or 0) if in_doubt else unused or 0

    def refill(
        self, lease: HoldLease, *, budgets: Sequence[Budget], in_use_before: NanoUsd
    ) -> None:
        """Add what was granted after `drain`; `in_use_before` is what was in use at that time."""
        self.free += lease.granted_nano_usd
        if lease.has_lapsed:
            # What requests gave back meanwhile was not part of the new hold.
            self.free -= in_use_before - self.in_use
            self._unbacked = self.in_use
        self.budgets = budgets
        self._expires_ms = lease.expires_ms
        starts = (budget_window(budget.per, lease.at_ms)[0] for budget in budgets)
        self._windows_start_ms = max(self._windows_start_ms, *starts)
        self.has_new_spending = False

    def extend(self, *, expires_ms: int) -> None:
        """Record that the database renewed the hold."""
        self._expires_ms = expires_ms

    def expire(self) -> None:
        """Record that the database released the hold."""
        self.free, self._expires_ms = 0, 0
        self._unbacked = self.in_use

    def needs_renewal(self, now_ms: int) -> bool:
        """Return whether the hold expires within `RENEW_MS`."""
        return self._expires_ms - now_ms < RENEW_MS

    def end_interval(self) -> None:
        """Close the current interval and start the next."""
        self.is_quiet = not self._reserved
        self._previous_reserved, self._reserved = self._reserved, 0
