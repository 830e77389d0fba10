"""The one request path, from who asks for what to a recorded answer."""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial

import msgspec

from embedway.catalog.catalog import Catalog
from embedway.core import ids, money, vectors
from embedway.core.errors import EmbedwayError, InvalidRequest, Overloaded
from embedway.core.keys import Caller
from embedway.core.money import NanoUsd
from embedway.core.request import EmbedRequest
from embedway.core.vectors import Vectors
from embedway.limits import tokens as token_limits
from embedway.metering import settle
from embedway.ports.engine import Engine
from embedway.ports.storage import Ledger
from embedway.routing.resolve import Candidate, resolve

PART_CHARACTERS = 2**20
"""Tokenised at a time: what is over a limit is refused before there is more of it."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a request is answered with."""

    id: str
    created_s: int
    candidate: Candidate
    """Who answered."""
    vectors: Vectors
    tokens: int
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
        ledger: Ledger,
        deadline_s: float,
        now_ms: Callable[[], int],
    ) -> None:
        """Args name what it needs; `engines` are by model id."""
        self._catalog = catalog
        self._engines = engines
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
            answer = await self._embed(request, id, at_ms)
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
                model=answer.candidate.model.id,
                provider=answer.candidate.deployment.provider,
                tokens=answer.tokens,
                cost_nano_usd=answer.cost_nano_usd,
            )
        )
        return answer

    async def _embed(self, request: EmbedRequest, id: str, at_ms: int) -> Answer:
        candidate = resolve(request, self._catalog)[0]
        model, engine = candidate.model, self._engines[candidate.model.id]
        texts = _texts(request)
        began_s = time.perf_counter()
        try:
            async with asyncio.timeout(self._deadline_s):
                fitting: list[list[int]] = []
                for part in _parts(texts):
                    tokenised = await engine.tokenize(part)
                    fitting = token_limits.fit(
                        [*fitting, *tokenised], model=model, truncate=request.truncate
                    )
                embedded = await engine.embed(fitting)
        except TimeoutError:
            raise Overloaded(
                f"The answer was not ready within {self._deadline_s:g} s. Try again, with fewer "
                "items."
            ) from None
        vectors.check(embedded, items=len(fitting), dimensions=model.dimensions)
        tokens = sum(len(item) for item in fitting)
        price = candidate.deployment.price_per_mtok_usd
        return Answer(
            id=id,
            created_s=at_ms // 1000,
            candidate=candidate,
            vectors=embedded,
            tokens=tokens,
            cost_nano_usd=money.cost(tokens, price_per_mtok=price),
            engine_s=time.perf_counter() - began_s,
        )


def _parts(texts: list[str]) -> Iterator[list[str]]:
    """`texts` in order, in parts that are safe to hold as tokens, whatever they turn out to be."""
    start = characters = 0
    for end, text in enumerate(texts):
        if characters and characters + len(text) > PART_CHARACTERS:
            yield texts[start:end]
            start, characters = end, 0
        characters += len(text)
    yield texts[start:]


def _texts(request: EmbedRequest) -> list[str]:
    """The texts of a request to a local model, which takes nothing else."""
    if request.extra_body:
        name = next(iter(request.extra_body))
        raise InvalidRequest(
            f"The field {name!r} is not known, and the model runs here: there is no provider to "
            "hand it to. Take it out.",
            param=name,
        )
    texts = [item for item in request.items if isinstance(item, str)]
    if not texts:
        raise InvalidRequest(
            "This model takes texts, not token ids. Send 'input' as a string or a list of "
            "strings (LangChain: check_embedding_ctx_length=False).",
            param="input",
        )
    return texts
