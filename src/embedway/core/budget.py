"""Defines budgets: the most USD to spend in a calendar window, in UTC."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from embedway.core.money import NanoUsd, format_usd

BudgetPer = Literal["day", "week", "month", "total"]

MAX_NANO_USD = 10**18
"""A billion dollars; sums of it fit into 64 bits."""

Percent = Annotated[int, Meta(ge=1, le=100)]


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """The most to spend in one window. Reservations for unfinished requests count as spent."""

    amount_nano_usd: Annotated[NanoUsd, Meta(ge=0, le=MAX_NANO_USD)]
    per: BudgetPer
    alerts: tuple[Percent, ...] = ()
    """The percentages at which the log and the metrics report the spending."""

    def __str__(self) -> str:
        per = "in total" if self.per == "total" else f"per {self.per}"
        return f"{format_usd(self.amount_nano_usd)} USD {per}"

    def alerts_due(self, spent_nano_usd: NanoUsd) -> tuple[Percent, ...]:
        """Return those of `alerts` that spending `spent_nano_usd` has reached."""
        return tuple(
            percent
            for percent in self.alerts
            if spent_nano_usd > 0 and self.amount_nano_usd * percent <= spent_nano_usd * 100
        )


class BudgetSpending(msgspec.Struct, frozen=True, kw_only=True):
    """How much of a budget is spent in the current window."""

    budget: Budget
    spent_nano_usd: NanoUsd
    ends_ms: int | None
    """When the window ends and spending restarts at 0, in ms since the epoch; None for never."""

    @property
    def left_nano_usd(self) -> NanoUsd:
        """The amount not spent. Some of it may be reserved for unfinished requests."""
        return max(0, self.budget.amount_nano_usd - self.spent_nano_usd)


def budget_window(per: BudgetPer, now_ms: int) -> tuple[int, int | None]:
    """Return the start (inclusive) and end (exclusive) of the window around `now_ms`.

    All times are ms since the epoch. Weeks begin on Monday; `total` begins at 0 and has no end.
    """
    if per == "total":
        return 0, None
    day = datetime.fromtimestamp(now_ms / 1000, UTC).replace(
        hour=0, minute=0, second=0, microsecond=0
    )
    match per:
        case "day":
            start, end = day, day + timedelta(days=1)
        case "week":
            start = day - timedelta(days=day.weekday())
            end = start + timedelta(days=7)
        case "month":
            start = day.replace(day=1)
            end = (start + timedelta(days=31)).replace(day=1)
    return _epoch_ms(start), _epoch_ms(end)


def _epoch_ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)
