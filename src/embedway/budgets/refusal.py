"""What a request is told that a budget has not enough left for, and when that may be otherwise."""

from collections.abc import Mapping
from datetime import UTC, datetime

from embedway.budgets.hold_store import HoldLease
from embedway.core.budget import Budget, budget_window
from embedway.core.errors import BudgetExceeded
from embedway.core.money import NanoUsd, format_usd
from embedway.core.subject import Subject


def is_exhausted(lease: HoldLease, cost_nano_usd: NanoUsd) -> bool:
    """Whether a request is too dear for what is not spent, whatever becomes of what is held."""
    return any(_left(each) < cost_nano_usd for each in lease.spent.items())


def budget_error(subject: Subject, lease: HoldLease, *, cost_nano_usd: NanoUsd) -> BudgetExceeded:
    """Why a request that may cost so much is refused, as the refused `lease` showed."""
    least = min(map(_left, lease.spent.items()))
    # Of several that refuse it, that which does so for longest.
    binding = max(
        (each for each in lease.spent.items() if _left(each) < max(cost_nano_usd, least + 1)),
        key=lambda each: _end_ms(each[0], lease.at_ms),
    )
    return _refusal(subject, *binding, lease=lease, cost_nano_usd=cost_nano_usd)


def first_reset_ms(budgets: Mapping[Budget, NanoUsd], at_ms: int) -> float:
    """When the first of their windows ends; milliseconds since 1970-01-01 UTC."""
    return min(_end_ms(budget, at_ms) for budget in budgets)


def _refusal(
    subject: Subject, budget: Budget, spent: NanoUsd, *, lease: HoldLease, cost_nano_usd: NanoUsd
) -> BudgetExceeded:
    left = _left((budget, spent))
    stands = f"{format_usd(spent)} USD of {budget} are spent"
    costs = f"this request may cost {format_usd(cost_nano_usd)} USD"
    if left >= cost_nano_usd:
        return BudgetExceeded(
            f"What is left of the budget of {subject.label} is reserved for requests under way: "
            f"{stands}, {format_usd(lease.held_nano_usd)} USD are reserved, and {costs}. "
            "Try again shortly.",
            soon=True,
        )
    _, ends = budget_window(budget.per, lease.at_ms)
    if ends is None:
        anew, wait = "It does not begin anew.", ""
    else:
        begins = datetime.fromtimestamp(ends / 1000, UTC)
        anew, wait = f"It begins anew at {begins:%Y-%m-%dT%H:%M:%SZ}.", "wait until then, or "
    if left <= 0:
        cure = f"{wait}ask its administrator to raise it."
        return BudgetExceeded(
            f"The budget of {subject.label} is spent: {stands}. {anew} {cure[0].upper()}{cure[1:]}"
        )
    return BudgetExceeded(
        f"Too little is left of the budget of {subject.label}: {stands}, and {costs}. {anew} "
        f"Send less, {wait or 'or '}ask its administrator to raise it."
    )


def _left(each: tuple[Budget, NanoUsd]) -> NanoUsd:
    budget, spent = each
    return budget.amount_nano_usd - spent


def _end_ms(budget: Budget, at_ms: int) -> float:
    end = budget_window(budget.per, at_ms)[1]
    return float("inf") if end is None else end
