"""Counts money in whole nano-dollars (1e-9 USD), so that sums are exact."""

from decimal import Decimal
from functools import lru_cache

NanoUsd = int
NANO_PER_USD = 10**9


def cost(tokens: int, *, price_per_mtok: Decimal) -> NanoUsd:
    """Return what `tokens` cost at `price_per_mtok` USD per million, rounded up."""
    nano_usd, per_tokens = _ratio(price_per_mtok)
    return -(-tokens * nano_usd // per_tokens)


@lru_cache(maxsize=1024)
def _ratio(price_per_mtok: Decimal) -> tuple[NanoUsd, int]:
    """Return a price as nano-USD and how many tokens they buy, exactly and in whole numbers."""
    return (price_per_mtok * 1000).as_integer_ratio()


@lru_cache(maxsize=1024)
def format_usd(amount: NanoUsd) -> str:
    """Return `amount` in dollars, exact and without an exponent: 1500 -> '0.0000015'."""
    return f"{Decimal(amount).scaleb(-9).normalize():f}"
