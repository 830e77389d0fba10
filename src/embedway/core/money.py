"""Money is an integer count of nano-dollars (1e-9 USD), so that sums are exact."""

from decimal import Decimal

NanoUsd = int


def cost(tokens: int, *, price_per_mtok: Decimal) -> NanoUsd:
    """What `tokens` cost at USD `price_per_mtok` per million, rounded up to a nano-dollar."""
    nano = tokens * price_per_mtok * 1000
    return int(nano.to_integral_value(rounding="ROUND_CEILING"))


def format_usd(amount: NanoUsd) -> str:
    """`amount` as a plain decimal number of dollars, exact: 1500 -> '0.0000015'."""
    return f"{Decimal(amount).scaleb(-9).normalize():f}"
