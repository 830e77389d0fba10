"""Estimates how many tokens a request has and what it may cost, before it is sent."""

from collections.abc import Sequence
from contextlib import suppress
from decimal import Decimal
from typing import cast

from embedway.core import money
from embedway.core.errors import InvalidRequest
from embedway.core.money import NanoUsd
from embedway.sending.attempt import Attempt


async def count_tokens(attempts: Sequence[Attempt]) -> int:
    """Count a request's tokens with the tokenizer of the first deployment that accepts it.

    Raises:
        InvalidRequest: No deployment accepts it.
        ServiceOverloaded: Too much is waiting to be counted.
    """
    refusal: InvalidRequest | None = None
    for attempt in attempts:
        try:
            return sum((await attempt.prepare()).tokens)
        except InvalidRequest as error:
            refusal = refusal or error
    raise cast("InvalidRequest", refusal)


async def max_cost(attempts: Sequence[Attempt]) -> NanoUsd:
    """Return the most that a request can cost, whichever deployments answer its items.

    Raises:
        ServiceOverloaded: Too much is waiting to be counted.
    """
    price = max(each.deployment.spec.price_per_mtok_usd or Decimal(0) for each in attempts)
    if not price:
        return 0
    most_tokens = 0
    for attempt in attempts:
        with suppress(InvalidRequest):  # this deployment will not be called
            most_tokens = max(most_tokens, (await attempt.prepare()).max_billed_tokens)
    return money.cost(most_tokens, price_per_mtok=price)
