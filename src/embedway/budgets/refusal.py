"""Builds the error for a request that does not fit into a budget."""

from collections.abc import Mapping
from datetime import UTC, datetime

from embedway.budgets.hold_store import HoldLease
from embedway.core.budget import Budget, budget_window
from embedway.core.errors import BudgetExceeded
from embedway.core.money import NanoUsd, format_usd
from embedway.core.subject import Subject


def is_exhausted(lease: HoldLease, cost_nano_usd: NanoUsd) -> bool:
    """Return whether the cost exceeds what is left even if no other request spends anything."""
    return any(_left(each) < cost_nano_usd for each in lease.spending.items())


def budget_error(subject: Subject, lease: HoldLease, *, cost_nano_usd: NanoUsd) -> BudgetExceeded:
    """Return the error for a request that `lease`, which granted nothing, refuses."""
    least = min(map(_left, lease.spending.items()))
    # Of several budgets that refuse it, name the one that resets last.
    budget, spent = max(
        (each for each in lease.spending.items() if _left(each) < max(cost_nano_usd, least + 1)),
        key=lambda each: _reset_ms(each[0], lease.at_ms),
    )
    left = budget.amount_nano_usd - spent
    spending = f"{format_usd(spent)} USD of {budget} are spent"
    cost = f"this request may cost {format_usd(cost_nano_usd)} USD"
    if left >= cost_nano_usd:
        return BudgetExceeded(
            f"The rest of the budget of {subject.label} is reserved for requests in progress: "
            f"{spending}, {format_usd(lease.reserved_nano_usd)} USD are reserved, and {cost}. "
            "Try again shortly.",
            soon=True,
        )
    _, ends_ms = budget_window(budget.per, lease.at_ms)
    if ends_ms is None:
        reset, wait = "It does not reset.", ""
    else:
        at = datetime.fromtimestamp(ends_ms / 1000, UTC)
        reset, wait = f"It resets at {at:%Y-%m-%dT%H:%M:%SZ}.", "wait until then, or "
    if left <= 0:
        cure = f"{wait}ask its administrator to raise it."
        return BudgetExceeded(
            f"The budget of {subject.label} is spent: {spending}. {reset} "
            f"{cure[0].upper()}{cure[1:]}"
        )
    return BudgetExceeded(
        f"Too little is left of the budget of {subject.label}: {spending}, and {cost}. {reset} "
        f"Send less, {wait or 'or '}ask its administrator to raise it."
    )


def first_reset_ms(budgets: Mapping[Budget, NanoUsd], at_ms: int) -> float:
    """Return when the first of their windows ends, in ms since the epoch; infinity for never."""
    return min(_reset_ms(budget, at_ms) for budget in budgets)


def _left(spending: tuple[Budget, NanoUsd]) -> NanoUsd:
    budget, spent = spending
    return budget.amount_nano_usd - spent


def _reset_ms(budget: Budget, at_ms: int) -> float:
    end_ms = budget_window(budget.per, at_ms)[1]
    return float("inf") if end_ms is None else end_ms
