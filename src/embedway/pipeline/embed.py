"""The one request path, from who asks for what to a recorded answer."""

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from decimal import Decimal
from functools import partial

import msgspec

from embedway.batching.send import Sender
from embedway.catalog.catalog import LOCAL, Catalog
from embedway.catalog.model import Deployment, Model, Served
from embedway.core import ids, money, vectors
from embedway.core.batch import Limits
from embedway.core.errors import EmbedwayError, InvalidRequest, Overloaded, UpstreamTimeout
from embedway.core.keys import Caller
from embedway.core.money import NanoUsd
from embedway.core.provider_error import ProviderError
from embedway.core.request import EmbedRequest
from embedway.core.spaces import SpaceId
from embedway.core.vectors import Vectors
from embedway.metering import settle
from embedway.pipeline.prepare import Preparation
from embedway.ports.engine import Engine
from embedway.ports.storage import Ledger
from embedway.routing.resolve import resolve

PADDING = 16
"""Zeros at the end of all vectors that are no chance."""


def engine_of(candidate: Served) -> str:
    """The name of who embeds for `candidate`: its provider, or the model itself if it is here."""
    provider = candidate.deployment.provider
    return f"{LOCAL}:{candidate.model.id}" if provider == LOCAL else provider


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a request is answered with."""

    id: str
    created_s: int
    candidate: Served
    """Who answered."""
    space: SpaceId
    vectors: Vectors
    tokens: int
    estimated: bool
    """Whether the tokens are an estimate: they could not be counted, and nobody told."""
    priced: bool
    """Whether the price is known; if not, the cost is 0."""
    cost_nano_usd: NanoUsd
    engine_s: float
    """Of the latency, what was spent waiting for and running the model."""


class Embedder:
    """Runs requests: one instance, shared by all of them."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        engines: Mapping[str, Engine],
        preparation: Preparation,
        sender: Sender,
        ledger: Ledger,
        deadline_s: float,
        now_ms: Callable[[], int],
    ) -> None:
        """Args name what it needs; `engines` are by the names of `engine_of`."""
        self._catalog = catalog
        self._engines = engines
        self._preparation = preparation
        self._sender = sender
        self._ledger = ledger
        self._deadline_s = deadline_s
        self._now_ms = now_ms

    async def run(
        self, request: EmbedRequest, caller: Caller, *, request_id: str, started_s: float
    ) -> Answer:
        """Answers `request`; returns only once its usage is committed.

        Args:
            request: What is asked for.
            caller: Who asks.
            request_id: For the usage record.
            started_s: When the request began, on `time.perf_counter`'s clock.

        Raises:
            EmbedwayError: It cannot be answered; that too is recorded, unless it was shed with 503.
        """
        at_ms, id = self._now_ms(), ids.new("embd")
        row = partial(settle.row, request, caller, id=id, request_id=request_id, at_ms=at_ms)
        try:
            candidate = resolve(request, self._catalog)[0]
            row = partial(row, model=candidate.model.id, provider=candidate.deployment.provider)
            answer = await self._embed(
                request, candidate, id=id, request_id=request_id, at_ms=at_ms
            )
        except Overloaded:
            raise  # work that was shed costs nothing, not even a row
        except EmbedwayError as error:
            # The refusal stands, recorded or not: it is not billed.
            with suppress(EmbedwayError):
                latency_s = time.perf_counter() - started_s
                await self._ledger.record(row(latency_s=latency_s, status=error.status))
            raise
        await self._ledger.record(
            row(
                latency_s=time.perf_counter() - started_s,
                tokens=answer.tokens,
                estimated=answer.estimated,
                priced=answer.priced,
                cost_nano_usd=answer.cost_nano_usd,
            )
        )
        return answer

    async def _embed(
        self, request: EmbedRequest, candidate: Served, *, id: str, request_id: str, at_ms: int
    ) -> Answer:
        model, deployment = candidate.model, candidate.deployment
        engine = self._engines[engine_of(candidate)]
        began_s = time.perf_counter()
        deadline_s = asyncio.get_running_loop().time() + self._deadline_s
        try:
            async with asyncio.timeout_at(deadline_s):
                prepared = await self._preparation.prepared(request, candidate, engine.abilities)
                embedded = await self._sender.send(
                    prepared.batch,
                    engine.embed,
                    request_id=request_id,
                    provider=deployment.provider,
                    limits=_limits(engine.limits, deployment),
                    exact=prepared.exact,
                    deadline_s=deadline_s,
                )
            answered = _finished(embedded.vectors, request, model, prepared.shorten_to)
        except TimeoutError:
            raise self._late(deployment) from None
        except ProviderError as error:
            # Each call that failed has its own line in the log.
            raise error.answer(deployment.provider, model=model.id) from None
        price, told = deployment.price_per_mtok_usd, request.input_type
        return Answer(
            id=id,
            created_s=at_ms // 1000,
            candidate=candidate,
            space=candidate.space(
                width=answered.shape[1],
                input_type=told if told in engine.abilities.input_types else None,
                extra=request.extra_body,
            ),
            vectors=answered,
            tokens=embedded.tokens,
            estimated=not embedded.exact,
            priced=price is not None,
            cost_nano_usd=money.cost(embedded.tokens, price_per_mtok=price or Decimal(0)),
            engine_s=time.perf_counter() - began_s,
        )

    def _late(self, deployment: Deployment) -> EmbedwayError:
        message = (
            f"The answer was not ready within {self._deadline_s:g} s. Try again, with fewer items."
        )
        if deployment.provider == LOCAL:
            return Overloaded(message)
        return UpstreamTimeout(f"{deployment.provider}: {message}")


def _limits(limits: Limits, deployment: Deployment) -> Limits:
    """Of a call: the deployment's own before its provider's."""
    return msgspec.structs.replace(
        limits,
        max_items=deployment.max_items or limits.max_items,
        max_tokens=deployment.max_batch_tokens or limits.max_tokens,
    )


def _finished(
    embedded: Vectors, request: EmbedRequest, model: Model, shorten_to: int | None
) -> Vectors:
    """The vectors as they are answered: as wide as was asked for, and of length one if so meant."""
    if shorten_to is not None:
        return vectors.shortened(embedded, dimensions=shorten_to)
    if request.dimensions is None:
        return embedded
    if model.trained_dimensions == "unknown" and not embedded[:, -PADDING:].any():
        # DeepInfra fills up with zeros what is asked for beyond a model's own width.
        raise InvalidRequest(
            f"'dimensions' is {request.dimensions}, more than {model.id!r} has. Ask for fewer.",
            param="dimensions",
        )
    # Some shorten without normalising anew: Gemini does.
    return vectors.normalised(embedded) if model.normalised else embedded
