"""One request's way to one deployment: what it is sent, and what is made of its answers."""

import math
from collections.abc import Sequence
from contextlib import suppress
from decimal import Decimal
from typing import cast

import msgspec

from embedway.catalog.model import Served
from embedway.core import money, vectors
from embedway.core.batch import Batch, Limits, Result
from embedway.core.errors import InvalidRequest
from embedway.core.money import NanoUsd
from embedway.core.provider_error import ProviderError
from embedway.core.request import EmbedRequest, InputType
from embedway.core.spaces import SpaceId
from embedway.core.vectors import Vectors
from embedway.metering.billing import Tally
from embedway.pipeline.calls import Calls
from embedway.pipeline.prober import Prober
from embedway.ports.engine import Engine
from embedway.routing.rank import Ranked
from embedway.sending.engine import limits_of
from embedway.sending.prepare import Counted, Preparation
from embedway.sending.sender import Outcome

PADDING = 16
"""Zeros at the end of all vectors that are no chance."""


class Route:
    """See `embedway.sending.sender.Route`."""

    def __init__(
        self,
        request: EmbedRequest,
        ranked: Ranked,
        *,
        engine: Engine,
        told: InputType | None,
        space: SpaceId,
        revision: str,
        preparation: Preparation,
        counted: Counted,
        prober: Prober,
        calls: Calls,
        request_id: str,
    ) -> None:
        """Args name what it needs.

        `told` is what the deployment is told that vectors are for, `space` what these must be of,
        and `revision` says which of its model's spaces that is.
        """
        self.served = ranked.served
        self.space = space
        """Of its vectors, but for their width."""
        self._revision = revision
        self.tally = Tally(served=self.served)
        """What it was asked, and what came of it."""
        self._was_healthy = ranked.standing == "healthy"
        self._request = request
        self._engine = engine
        self._told: InputType | None = told
        self._preparation = preparation
        self._counted = counted
        self._prober = prober
        self._calls = calls
        self._request_id = request_id
        self._batch: Batch | None = None

    @property
    def limits(self) -> Limits:
        """Of a call."""
        return limits_of(self.served, self._engine.limits)

    @property
    def provider(self) -> str:
        """See `embedway.sending.sender.Route.provider`."""
        return self.served.provider

    async def prepared(self) -> Batch:
        """See `embedway.sending.sender.Route.prepared`."""
        if self._batch is None:
            self._batch = await self._preparation.prepared(
                self._request, self.served, self._engine.abilities, self._counted
            )
        return self._batch

    async def embed(self, batch: Batch) -> Result:
        """See `embedway.sending.sender.Route.embed`."""
        return await self._engine.embed(batch)

    async def finished(self, batch: Batch, result: Result) -> Result:
        """See `embedway.sending.sender.Route.finished`."""
        await self._check_space(batch, result)
        finished = _finished(result.vectors, batch, self._request, self.served)
        if finished is result.vectors:
            return result
        return msgspec.structs.replace(result, vectors=finished)

    def began(self, *, others: bool) -> None:
        """See `embedway.sending.sender.Route.began`."""
        # Who was ranked last for its failures is asked all the same, once that is its turn.
        self._calls.began(self.served, others=others and self._was_healthy)

    def ended(self, batch: Batch, outcome: Outcome, seconds: float) -> None:
        """See `embedway.sending.sender.Route.ended`."""
        self._calls.ended(self.tally, batch, outcome, seconds, request_id=self._request_id)

    async def _check_space(self, batch: Batch, result: Result) -> None:
        """Holds back an answer that looks other than the proven ones, until its space is proven."""
        if batch.dimensions is not None or self._request.extra_body:
            width = norm = None  # as nobody proved
        else:
            first = result.vectors[0]
            width, norm = first.shape[0], math.sqrt(float(first @ first))
        prober, served, told, model = self._prober, self.served, self._told, result.model
        confirmed = not prober.changed(
            served, told, width=width, norm=norm, model=model
        ) or await prober.confirm(served, told, width=width, norm=norm, model=model)
        if not (confirmed and prober.is_in(served, told, self._revision)):
            raise ProviderError("malformed", "vectors of another space than before", billed="yes")


async def count_tokens(routes: Sequence[Route]) -> int:
    """Count a request's tokens as the first deployment that accepts it does.

    Raises:
        InvalidRequest: No deployment accepts it.
        Overloaded: Too much is waiting.
    """
    refusal: InvalidRequest | None = None
    for route in routes:
        try:
            return sum((await route.prepared()).tokens)
        except InvalidRequest as error:
            refusal = refusal or error
    raise cast("InvalidRequest", refusal)


async def max_cost(routes: Sequence[Route]) -> NanoUsd:
    """The most that a request can be charged, whichever deployments answer which of its items.

    Raises:
        Overloaded: Too much is waiting.
    """
    price = max(each.served.deployment.price_per_mtok_usd or Decimal(0) for each in routes)
    if not price:
        return 0
    most_tokens = 0
    for route in routes:
        with suppress(InvalidRequest):  # it is not sent there
            most_tokens = max(most_tokens, (await route.prepared()).max_billed_tokens)
    return money.cost(most_tokens, price_per_mtok=price)


def _finished(embedded: Vectors, batch: Batch, request: EmbedRequest, served: Served) -> Vectors:
    """The vectors as they are answered: as wide as was asked for."""
    if request.dimensions is None:
        return embedded
    if batch.dimensions is None and request.dimensions == embedded.shape[1]:
        return embedded  # all of it, so of the length it has
    if batch.dimensions is None:
        return vectors.shortened(embedded, dimensions=request.dimensions)
    model, width = served.model, embedded.shape[1]
    if width != request.dimensions:
        raise InvalidRequest(
            f"'dimensions' is {request.dimensions}, but {served.provider} answers for {model.id!r} "
            f"with {width} all the same. Leave it out, or declare the model with its "
            "trained_dimensions, and this gateway shortens its vectors.",
            param="dimensions",
        )
    if model.trained_dimensions == "unknown" and not embedded[:, -PADDING:].any():
        # DeepInfra fills up with zeros what is asked for beyond a model's own width.
        raise InvalidRequest(
            f"'dimensions' is {request.dimensions}, more than {model.id!r} has. Ask for fewer.",
            param="dimensions",
        )
    return embedded
