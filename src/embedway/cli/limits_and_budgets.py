"""Limits and budgets as they are typed: `requests=600/minute` and `25/month`.

Owns the one form of each, both ways. Knows nothing of whose they are.
"""

import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import TypeVar, cast, get_args

from embedway.cli.terminal import reject
from embedway.core.budget import MAX_NANO_USD, Budget, BudgetPer
from embedway.core.limit import MAX_AMOUNT, Limit, LimitPeriod, LimitUnit
from embedway.core.money import format_usd
from embedway.organization.rules import MAX_ALERTS

NONE = "none"
"""Takes away what there is."""

T = TypeVar("T")

_NANO_DIGITS = 9
_OF = "|".join(get_args(LimitUnit))
_PER = "|".join(get_args(LimitPeriod))
_BUDGET_PER = "|".join(get_args(BudgetPer))
_LIMIT = re.compile(rf"({_OF})=([0-9]{{1,16}})/({_PER})")
_BUDGET = re.compile(rf"([0-9]{{1,10}}(?:\.[0-9]{{1,{_NANO_DIGITS}}})?)/({_BUDGET_PER})")
_PERCENT = re.compile(r"[0-9]{1,3}")
_MAX_PERCENT = 100


def parse_limit(text: str) -> Limit:
    """The limit that is typed so.

    Raises:
        ValueError: None is; the message says how they are.
    """
    found = _LIMIT.fullmatch(text)
    if not found or not 1 <= int(found[2]) <= MAX_AMOUNT:
        raise ValueError(
            f"{text!r} is no limit. Type one as requests=600/minute or tokens=1000000/day: "
            f"{_OF.replace('|', ' or ')}, a whole number from 1 on, per "
            f"{_PER.replace('|', ', ')}."
        )
    of, per = cast("LimitUnit", found[1]), cast("LimitPeriod", found[3])
    return Limit(of=of, amount=int(found[2]), per=per)


def parse_budget(text: str) -> Budget:
    """The budget that is typed so, without alerts.

    Raises:
        ValueError: None is; the message says how they are.
    """
    found = _BUDGET.fullmatch(text)
    amount = int(Decimal(found[1]).scaleb(_NANO_DIGITS)) if found else -1
    if not found or amount > MAX_NANO_USD:
        raise ValueError(
            f"{text!r} is no budget. Type one as 25/month or 0.5/day: USD, at most "
            f"{MAX_NANO_USD // 10**_NANO_DIGITS}, with at most {_NANO_DIGITS} decimals, per "
            f"{_BUDGET_PER.replace('|', ', ')}."
        )
    per = cast("BudgetPer", found[2])
    return Budget(amount_nano_usd=amount, per=per)


def format_limit(limit: Limit) -> str:
    """The limit as it is typed."""
    return f"{limit.of}={limit.amount}/{limit.per}"


def format_budget(budget: Budget) -> str:
    """The budget as it is typed, without its alerts."""
    return f"{format_usd(budget.amount_nano_usd)}/{budget.per}"


def format_alerts(budget: Budget) -> str:
    """The alerts of the budget, to be read after it; empty if it has none."""
    percents = ", ".join(f"{each}%" for each in budget.alerts)
    return f", alerts at {percents}" if percents else ""


def format_amounts(amounts: Sequence[Limit | Budget] | None, *, empty: str = "none") -> str:
    """Limits or budgets as they are typed; None stands for those that a project has for each."""
    if amounts is None:
        return "as the project says"
    each = (
        format_limit(each) if isinstance(each, Limit) else format_budget(each) for each in amounts
    )
    return ", ".join(each) or empty


def parse_limits(option: str, typed: Sequence[str]) -> tuple[Limit, ...]:
    """The limits that were typed for an option; () for `none`.

    Exits with status 2 for what is no limit, and for two limits of the same.
    """
    found = _parse(parse_limit, option, typed)
    _check_once(option, typed, [f"limits of {each.of} per {each.per}" for each in found])
    return found


def parse_budgets(option: str, typed: Sequence[str]) -> tuple[Budget, ...]:
    """The budgets that were typed for an option, without alerts; () for `none`.

    Exits with status 2 for what is no budget, and for two budgets of the same window.
    """
    found = _parse(parse_budget, option, typed)
    _check_once(option, typed, [f"budgets per {each.per}" for each in found])
    return found


def parse_alerts(option: str, typed: Sequence[str]) -> tuple[int, ...]:
    """The percentages that were typed for an option; () for `none`.

    Exits with status 2 for what is no percentage, and for too many.
    """
    if list(typed) == [NONE]:
        return ()
    for each in typed:
        if not (_PERCENT.fullmatch(each) and 1 <= int(each) <= _MAX_PERCENT):
            reject(
                f"{option} {each!r} is no percentage. Type a whole number from 1 to "
                f"{_MAX_PERCENT}, such as 80, or 'none' for no alerts."
            )
    percents = tuple(sorted({int(each) for each in typed}))
    if len(percents) > MAX_ALERTS:
        reject(
            f"{repeated(option, percents)} are {len(percents)} alerts; a budget has at most "
            f"{MAX_ALERTS}. Leave some out."
        )
    return percents


def repeated(option: str, values: Sequence[object]) -> str:
    """An option with each of its values, as it is typed."""
    return " ".join(f"{option} {str(each)!r}" for each in values)


def _parse(parse: Callable[[str], T], option: str, typed: Sequence[str]) -> tuple[T, ...]:
    try:
        return () if list(typed) == [NONE] else tuple(map(parse, typed))
    except ValueError as error:
        reject(f"{option} {error}")


def _check_once(option: str, typed: Sequence[str], windows: Sequence[str]) -> None:
    first: dict[str, str] = {}
    for text, window in zip(typed, windows, strict=False):  # `none` has no window
        if window in first:
            reject(
                f"{option} {first[window]!r} and {option} {text!r} are both {window}. Leave one of "
                "them out."
            )
        first[window] = text
