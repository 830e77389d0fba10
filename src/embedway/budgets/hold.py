"""What this process holds of one subject's budgets, to spend without asking the database.

The database has one number for it: what the process holds. Here it is two: what is in use by
requests under way, and what is free. Their sum is never more than the database's, which is why
nothing is spent that another process may spend too. Knows neither the database nor the event loop.
"""

from collections.abc import Sequence

from embedway.budgets.hold_store import HoldLease
from embedway.core.budget import Budget, budget_window
from embedway.core.money import NanoUsd

MARGIN_MS = 15_000
"""So long before the database lets go of a hold, this process does not rely on it any more."""
RENEW_MS = 40_000
"""So long before that it is renewed."""


class BudgetHold:
    """Of one subject. Amounts are in nano-dollars, times in milliseconds since 1970-01-01 UTC."""

    __slots__ = (
        "_before",
        "_expires_ms",
        "_since_ms",
        "_taken",
        "_unbacked",
        "budgets",
        "free",
        "in_use",
        "is_quiet",
        "requests",
        "unseen",
    )

    def __init__(self) -> None:
        self.budgets: Sequence[Budget] = ()
        """For which it was leased."""
        self.free: NanoUsd = 0
        """Negative if requests used more than they reserved."""
        self.in_use: NanoUsd = 0
        self.requests = 0
        """Under way."""
        self.is_quiet = False
        """Whether nothing was taken out in the last stretch."""
        self.unseen = False
        """Whether anything was charged since the ledger was last looked at."""
        self._expires_ms = 0
        self._since_ms = 0
        # Of what is in use, what the database let go of while this process stood still.
        self._unbacked: NanoUsd = 0
        # In this and the last stretch between two calls of `rest`.
        self._taken: NanoUsd = 0
        self._before: NanoUsd = 0

    def covers(
        self, cost_nano_usd: NanoUsd, budgets: Sequence[Budget], *, at_ms: int, now_ms: int
    ) -> bool:
        """Whether a request that had been read at `at_ms` can be paid out of it.

        Not one from before the windows that it was leased in: of theirs all may be spent. But one
        from after them can be: what is held counted as spent in the new windows from their start.
        """
        return (
            self.free >= cost_nano_usd
            and now_ms < self._expires_ms - MARGIN_MS
            and at_ms >= self._since_ms
            and (self.budgets is budgets or self.budgets == budgets)
        )

    def is_late(self, at_ms: int) -> bool:
        """Whether a request is from before the windows that this was leased in."""
        return at_ms < self._since_ms

    def reserve(self, cost_nano_usd: NanoUsd) -> None:
        """For one request."""
        self.free -= cost_nano_usd
        self.in_use += cost_nano_usd
        self.requests += 1
        self._taken += cost_nano_usd

    def settle(self, *, reserved_nano_usd: NanoUsd, spent_nano_usd: NanoUsd) -> None:
        """Ends one request; the ledger has lessened what is held by what was spent."""
        # Which requests these are is not known. So the first are, and what is free is rather too
        # little until the last is settled.
        unbacked = min(self._unbacked, reserved_nano_usd)
        self._unbacked -= unbacked
        self.in_use -= reserved_nano_usd
        self.requests -= reserved_nano_usd > 0
        self.free += reserved_nano_usd - unbacked - spent_nano_usd
        self.unseen = self.unseen or spent_nano_usd > 0

    @property
    def pace(self) -> NanoUsd:
        """What was taken out in the last stretch, or in this one if that is more."""
        return max(self._taken, self._before)

    def drain(self) -> NanoUsd | None:
        """Takes out all that is free, for it to be given back; None if nothing is in use at all.

        Nothing can be taken until it is leased again.
        """
        free, self.free, self._expires_ms = self.free, 0, 0
        return free if self.requests else None

    def restore(self, unused: NanoUsd | None, *, in_doubt: bool) -> None:
        """Puts back what was taken out, after the database failed to take it.

        Args:
            unused: The amount taken out; negative if requests used more than they reserved.
            in_doubt: Whether the database may have taken it, so that others may spend it.
        """
        self.free += min(0, unused or 0) if in_doubt else unused or 0

    def refill(
        self, lease: HoldLease, *, budgets: Sequence[Budget], in_use_before: NanoUsd
    ) -> None:
        """Puts in what was granted, after `emptied`."""
        self.free += lease.granted_nano_usd
        if lease.lapsed:
            # What was settled meanwhile did not come back to the new hold.
            self.free -= in_use_before - self.in_use
            self._unbacked = self.in_use
        self.budgets = budgets
        self._expires_ms = lease.expires_ms
        starts = (budget_window(budget.per, lease.at_ms)[0] for budget in budgets)
        self._since_ms = max(self._since_ms, *starts)
        self.unseen = False

    def extend(self, *, expires_ms: int) -> None:
        """The database holds it until then."""
        self._expires_ms = expires_ms

    def expire(self) -> None:
        """The database let go of it."""
        self.free, self._expires_ms = 0, 0
        self._unbacked = self.in_use

    def needs_renewal(self, now_ms: int) -> bool:
        """Whether it is to be renewed."""
        return self._expires_ms - now_ms < RENEW_MS

    def end_interval(self) -> None:
        """Begins another stretch."""
        self.is_quiet = not self._taken
        self._before, self._taken = self._taken, 0
