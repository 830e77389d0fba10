"""Counts money in whole nano-dollars (1e-9 USD), so that sums are exact."""

from decimal import Decimal
from functools import lru_cache

NanoUsd = int
NANO_PER_USD = 10**9


def cost(tokens: int, *, price_per_mtok: Decimal) -> NanoUsd:
    """Return what `tokens` cost at `price_per_mtok` USD per million, rounded up."""
    nano = tokens * price_per_mtok * 1000
    return int(nano.to_integral_value(rounding="ROUND_CEILING"))


@lru_cache(maxsize=1024)
def format_usd(amount: NanoUsd) -> str:
    """Return `amount` in dollars, exact and without an exponent: 1500 -> '0.0000015'."""
    return f"{Decimal(amount).scaleb(-9).normalize():f}"
