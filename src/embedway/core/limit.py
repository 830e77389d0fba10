"""Describes a rate limit."""

from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

LimitUnit = Literal["requests", "tokens"]
LimitPeriod = Literal["second", "minute", "hour", "day"]

SECONDS: Mapping[LimitPeriod, int] = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}

SLOTS = 20
"""That each length is counted in: what is used leaves with its slot, never early."""
SLOT_MS: Mapping[LimitPeriod, int] = {
    per: length_s * 1000 // SLOTS for per, length_s in SECONDS.items()
}

MAX_AMOUNT = 10**15


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """At most `amount` in any stretch of that length."""

    of: LimitUnit
    amount: Annotated[int, Meta(ge=1, le=MAX_AMOUNT)]
    per: LimitPeriod

    def __str__(self) -> str:
        of = self.of.removesuffix("s") if self.amount == 1 else self.of
        return f"{self.amount} {of} per {self.per}"

    def units(self, tokens: int) -> int:
        """What a request of so many tokens counts."""
        return tokens if self.of == "tokens" else 1
