"""Defines limits, budgets and names as the admin API sends them, and converts them for the service.

Checks the types of fields. `organization.rules` checks their values together.
"""

import re
from collections.abc import Iterable
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from embedway.core.budget import MAX_NANO_USD, BudgetPer, BudgetSpending
from embedway.core.limit import MAX_AMOUNT, Limit, LimitPeriod, LimitUnit
from embedway.core.response_model import ResponseModel
from embedway.organization.budget_changes import BudgetChange
from embedway.organization.public_fields import public_spending
from embedway.organization.rules import MAX_ALERTS, MAX_BUDGETS, MAX_LIMITS, MAX_NAMES

MAX_USD = MAX_NANO_USD // 10**9
_USD = re.compile(r"[0-9]{1,10}(\.[0-9]{1,9})?")


class StrictBody(BaseModel):
    """The body of a request: it has no other fields, and values have exactly these types."""

    model_config = ConfigDict(strict=True, extra="forbid")

    def sent_fields(self) -> dict[str, Any]:
        """Return the fields that the client sent, converted for the service."""
        return {name: _to_internal(getattr(self, name)) for name in self.model_fields_set}


def _usd(value: object) -> Decimal:
    # Accept exact amounts only: no binary fractions, and at most nine decimals (nano-dollars).
    text = repr(value) if isinstance(value, int | float) else value
    if isinstance(value, float):
        text = f"{Decimal(repr(value)):f}"
    if isinstance(value, bool) or not isinstance(text, str) or not _USD.fullmatch(text):
        raise ValueError(
            "send an amount of USD such as 25.5, as a number or a string, with at most 9 decimals"
        )
    return Decimal(text)


Usd = Annotated[
    Decimal,
    BeforeValidator(_usd, json_schema_input_type=float | str),
    Field(ge=0, le=MAX_USD, description="USD, as a number or a string, with at most 9 decimals."),
]
Name = Annotated[str, Field(min_length=1, max_length=256)]
Names = Annotated[list[Name], Field(min_length=1, max_length=MAX_NAMES)]
_EMPTY_FOR_NULL = BeforeValidator(lambda value: [] if value is None else value)


def _form_check(example: str) -> BeforeValidator:
    def check_form(value: object) -> object:
        if not isinstance(value, dict | BaseModel):
            # Pydantic reports a ValueError to the client, but lets a TypeError through.
            raise ValueError(f"send one as {example}")  # noqa: TRY004
        return value  # pyright: ignore[reportUnknownVariableType]

    return BeforeValidator(check_form)


class LimitBody(StrictBody, title="RateLimit"):
    """A rate limit: at most `amount` in any interval of that length."""

    of: LimitUnit
    amount: Annotated[int, Field(ge=1, le=MAX_AMOUNT)]
    per: LimitPeriod


class BudgetBody(StrictBody, title="BudgetInput"):
    """A budget for a calendar window in UTC. Weeks begin on Monday; `total` never ends."""

    amount_usd: Usd = Field(
        default_factory=Decimal,
        description="USD, as a number or a string, with at most 9 decimals. If a change leaves it "
        "out, the budget of that window keeps its amount.",
    )
    per: BudgetPer
    alerts: Annotated[
        list[Annotated[int, Field(ge=1, le=100)]],
        Field(
            default_factory=list,
            max_length=MAX_ALERTS,
            description="Percentages of the budget at which the log warns. If a change leaves them "
            "out, the budget keeps its alerts.",
        ),
    ]


_CHECK_LIMIT_FORM = _form_check('{"of": "requests", "amount": 600, "per": "minute"}')
_CHECK_BUDGET_FORM = _form_check('{"amount_usd": 25.5, "per": "month", "alerts": [80]}')
Limits = Annotated[list[Annotated[LimitBody, _CHECK_LIMIT_FORM]], Field(max_length=MAX_LIMITS)]
Budgets = Annotated[list[Annotated[BudgetBody, _CHECK_BUDGET_FORM]], Field(max_length=MAX_BUDGETS)]
OptionalLimits = Annotated[Limits | None, _EMPTY_FOR_NULL]
OptionalBudgets = Annotated[Budgets | None, _EMPTY_FOR_NULL]


class BudgetCard(ResponseModel, title="Budget"):
    """A budget."""

    amount_usd: float
    per: BudgetPer
    alerts: list[int]


class SpendingCard(ResponseModel, title="BudgetSpending"):
    """What is spent and left of a budget in its current window."""

    per: BudgetPer
    amount_usd: float
    spent_usd: float
    left_usd: float
    """What is not spent yet. Some of it may be reserved for requests in progress."""
    resets_at: int | None
    """When the next window begins, in Unix seconds; null if never."""


class RestrictionFields(StrictBody):
    """The models and providers that a project or key may use."""

    models: Names | None = Field(
        default=None, description="The only model names that requests may use; null for any."
    )
    providers: Names | None = Field(
        default=None, description="The only providers that may serve requests; null for any."
    )


class RestrictedCard(ResponseModel):
    """What the requests of a project or key may use and spend."""

    models: list[str] | None
    providers: list[str] | None
    limits: list[LimitBody]
    budgets: list[BudgetCard]
    spending: list[SpendingCard]


def spending_cards(states: Iterable[BudgetSpending]) -> list[SpendingCard]:
    """Return the response's entries for these budgets."""
    return [SpendingCard(**each) for each in public_spending(states)]


def _to_internal(value: Any) -> Any:
    match value:
        case LimitBody():
            return Limit(of=value.of, amount=value.amount, per=value.per)
        case BudgetBody():
            sent_fields = value.model_fields_set
            return BudgetChange(
                per=value.per,
                amount_nano_usd=int(value.amount_usd.scaleb(9))
                if "amount_usd" in sent_fields
                else None,
                alerts=tuple(sorted(set(value.alerts))) if "alerts" in sent_fields else None,
            )
        case list():
            return tuple(_to_internal(each) for each in value)  # pyright: ignore[reportUnknownVariableType]
        case _:
            return value
