"""Limits, budgets and names on the wire of the admin API, and what becomes of them inside.

Knows which types fields are of; what values may be together is `admin.rules`.
"""

import re
from collections.abc import Iterable
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from embedway.core.budget import MAX_NANO_USD, BudgetPer, BudgetSpending
from embedway.core.limit import MAX_AMOUNT, Limit, LimitPeriod, LimitUnit
from embedway.organization.budget_changes import BudgetChange
from embedway.organization.public_fields import public_spending
from embedway.organization.rules import MAX_ALERTS, MAX_BUDGETS, MAX_LIMITS, MAX_NAMES

MAX_USD = MAX_NANO_USD // 10**9
_USD = re.compile(r"[0-9]{1,10}(\.[0-9]{1,9})?")


class StrictBody(BaseModel):
    """What a request sends: exactly these fields, of exactly these types."""

    model_config = ConfigDict(strict=True, extra="forbid")

    def sent(self) -> dict[str, Any]:
        """The fields that were sent, as they are inside."""
        return {name: _inside(getattr(self, name)) for name in self.model_fields_set}


def _usd(value: object) -> Decimal:
    # Exact: neither a binary fraction nor more digits than there are nano-dollars.
    text = repr(value) if isinstance(value, int | float) else value
    if isinstance(value, float):
        text = f"{Decimal(repr(value)):f}"
    if isinstance(value, bool) or not isinstance(text, str) or not _USD.fullmatch(text):
        raise ValueError("send a number of USD such as 25.5, or it as text, at most 9 decimals")
    return Decimal(text)


Usd = Annotated[
    Decimal,
    BeforeValidator(_usd, json_schema_input_type=float | str),
    Field(ge=0, le=MAX_USD, description="In USD; a number, or it as text; at most 9 decimals."),
]
Name = Annotated[str, Field(min_length=1, max_length=256)]
Names = Annotated[list[Name], Field(min_length=1, max_length=MAX_NAMES)]
EMPTY_FOR_NULL = BeforeValidator(lambda value: [] if value is None else value)


def _form(example: str) -> BeforeValidator:
    def check(value: object) -> object:
        if not isinstance(value, dict | BaseModel):
            # What pydantic tells on; a TypeError would pass through it.
            raise ValueError(f"send one as {example}")  # noqa: TRY004
        return value  # pyright: ignore[reportUnknownVariableType]

    return BeforeValidator(check)


class LimitBody(StrictBody):
    """At most so many in any stretch of that length."""

    of: LimitUnit
    amount: Annotated[int, Field(ge=1, le=MAX_AMOUNT)]
    per: LimitPeriod


class BudgetBody(StrictBody):
    """At most so much in a calendar window, in UTC; weeks begin on Monday, `total` never ends."""

    amount_usd: Usd = Field(
        default_factory=Decimal,
        description="In USD; a number, or it as text; at most 9 decimals. Left out of a change, "
        "the budget of that window keeps its own.",
    )
    per: BudgetPer
    alerts: Annotated[
        list[Annotated[int, Field(ge=1, le=100)]],
        Field(
            default_factory=list,
            max_length=MAX_ALERTS,
            description="At how many percent an operator is told; likewise.",
        ),
    ]


_LIMIT_FORM = _form('{"of": "requests", "amount": 600, "per": "minute"}')
_BUDGET_FORM = _form('{"amount_usd": 25.5, "per": "month", "alerts": [80]}')
Limits = Annotated[list[Annotated[LimitBody, _LIMIT_FORM]], Field(max_length=MAX_LIMITS)]
Budgets = Annotated[list[Annotated[BudgetBody, _BUDGET_FORM]], Field(max_length=MAX_BUDGETS)]


class LimitCard(BaseModel):
    """A limit, as it is answered."""

    of: LimitUnit
    amount: int
    per: LimitPeriod


class BudgetCard(BaseModel):
    """A budget, as it is answered."""

    amount_usd: float
    per: BudgetPer
    alerts: list[int]


class SpendingCard(BaseModel):
    """What is spent and left of a budget in the window that is under way."""

    per: BudgetPer
    amount_usd: float
    spent_usd: float
    left_usd: float
    """What is not spent; some of it may be reserved for requests under way."""
    resets_at: int | None
    """When the budget begins anew, in Unix seconds; null for never."""


def spending_cards(states: Iterable[BudgetSpending]) -> list[SpendingCard]:
    """What is spent and left of budgets, as it is answered."""
    return [SpendingCard(**each) for each in public_spending(states)]


def _inside(value: Any) -> Any:
    match value:
        case LimitBody():
            return Limit(of=value.of, amount=value.amount, per=value.per)
        case BudgetBody():
            sent = value.model_fields_set
            return BudgetChange(
                per=value.per,
                amount_nano_usd=int(value.amount_usd.scaleb(9)) if "amount_usd" in sent else None,
                alerts=tuple(sorted(set(value.alerts))) if "alerts" in sent else None,
            )
        case list():
            return tuple(_inside(each) for each in value)  # pyright: ignore[reportUnknownVariableType]
        case _:
            return value
