"""Defines rate limits."""

from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

LimitUnit = Literal["requests", "tokens"]
LimitPeriod = Literal["second", "minute", "hour", "day"]

SECONDS: Mapping[LimitPeriod, int] = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}

SLOTS = 20
"""How many slots a period is divided into. Usage expires a slot at a time, never early."""
SLOT_MS: Mapping[LimitPeriod, int] = {
    per: length_s * 1000 // SLOTS for per, length_s in SECONDS.items()
}

MAX_AMOUNT = 10**15


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """The most requests or tokens in any interval of this length."""

    of: LimitUnit
    amount: Annotated[int, Meta(ge=1, le=MAX_AMOUNT)]
    per: LimitPeriod

    def __str__(self) -> str:
        of = self.of.removesuffix("s") if self.amount == 1 else self.of
        return f"{self.amount} {of} per {self.per}"

    def units(self, tokens: int) -> int:
        """Return how much a request of `tokens` counts against this limit."""
        return tokens if self.of == "tokens" else 1
