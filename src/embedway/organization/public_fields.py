"""Converts stored projects, keys and end users to the fields that users see.

Commands, the admin API and the audit log all use the same names and units.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from embedway.core.budget import BudgetSpending
from embedway.core.money import format_usd

_SECRET = frozenset(("digest", "previous_digest"))


def public(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stored record's public fields: times in seconds, money in USD, and no secrets."""
    return dict(_public(name, value) for name, value in fields.items() if name not in _SECRET)


def _public(name: str, value: Any) -> tuple[str, Any]:
    if name.endswith("_ms"):
        return f"{name.removesuffix('_ms')}_at", None if value is None else value // 1000
    if name == "hint":
        return "redacted_value", f"{value}..."
    if name in {"budgets", "user_budgets"} and value:
        return name, list(_budgets(value))
    return name, value


def _budgets(budgets: Iterable[Mapping[str, Any]]) -> Iterable[dict[str, Any]]:
    for each in budgets:
        rest = {name: value for name, value in each.items() if name != "amount_nano_usd"}
        yield {"amount_usd": float(format_usd(each["amount_nano_usd"])), **rest}


def public_spending(states: Iterable[BudgetSpending]) -> list[dict[str, Any]]:
    """Return the public fields of each budget's spending: money in USD, times in Unix seconds."""
    return [
        {
            "per": each.budget.per,
            "amount_usd": float(format_usd(each.budget.amount_nano_usd)),
            "spent_usd": float(format_usd(each.spent_nano_usd)),
            "left_usd": float(format_usd(each.left_nano_usd)),
            "resets_at": None if each.ends_ms is None else each.ends_ms // 1000,
        }
        for each in states
    ]
