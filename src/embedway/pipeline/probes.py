"""One probe: asks a deployment for the vectors of the canaries, within its limits."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

import numpy as np

from embedway.catalog.catalog import LOCAL
from embedway.catalog.model import Served
from embedway.core.batch import Batch, Items, Result
from embedway.core.errors import EmbedwayError, Overloaded
from embedway.core.provider_error import ProviderError
from embedway.core.request import InputType
from embedway.core.usage import UsageLine
from embedway.core.vectors import Vectors
from embedway.metering.billing import PROBE, Tally, probe_line
from embedway.pipeline.calls import Calls
from embedway.ports.engine import Engine, Tokenizer
from embedway.routing.verdict import Probe
from embedway.sending import cut as plan
from embedway.sending.engine import engine_of, limits_of
from embedway.sending.sender import Outcome, checked

TIMEOUT_S = 10
"""Of each call."""
AT_ONCE = 8
CHARACTERS_PER_TOKEN = 3
MOST_MARKS = 8
"""Tokens that a model puts around a text."""

Record = Callable[[UsageLine], Awaitable[None]]
"""Keeps the line of a probe; raises nothing."""


class Probes:
    """Makes probes, at most `AT_ONCE` at a time."""

    def __init__(
        self,
        *,
        calls: Calls,
        engines: Mapping[str, Engine],
        tokenizers: Mapping[str, Tokenizer],
        fingerprint: Callable[[Served], str],
        now_ms: Callable[[], int],
        record: Record,
    ) -> None:
        """See `embedway.pipeline.prober.Prober` and `embedway.routing.spaces.Spaces`."""
        self._calls = calls
        self._engines = engines
        self._tokenizers = tokenizers
        self._fingerprint = fingerprint
        self._now_ms = now_ms
        self._record = record
        self._gate = asyncio.Semaphore(AT_ONCE)

    async def made(
        self, served: Served, input_type: InputType | None, texts: Sequence[str]
    ) -> Probe:
        """What `served` answers to `texts`.

        Raises:
            ProviderError: It cannot be asked, or not properly.
        """
        async with self._gate:
            batch = await self._batch(served, input_type, texts)
            tally = Tally(served=served)
            began_s, failed = self._calls.now_s(), True
            try:
                whole, models = await self._asked(tally, batch)
                failed = False
            finally:
                if tally.calls and served.provider != LOCAL:
                    seconds = self._calls.now_s() - began_s
                    await self._record(
                        probe_line(tally, at_ms=self._now_ms(), latency_s=seconds, failed=failed)
                    )
            return Probe(
                vectors=whole,
                models=models,
                fingerprint=self._fingerprint(served),
                at_ms=self._now_ms(),
            )

    async def _batch(
        self, served: Served, input_type: InputType | None, texts: Sequence[str]
    ) -> Batch:
        prompt = served.prompt(input_type)
        items: Items = [prompt + text for text in texts]
        tokens = [len(text) // CHARACTERS_PER_TOKEN + MOST_MARKS for text in items]
        if served.provider == LOCAL:
            items = await self._tokenizers[served.model.id].encode(texts)
            tokens = [len(item) for item in items]
        return Batch(
            model=served.name,
            base_model=served.deployment.base_model,
            items=items,
            tokens=tokens,
            width=served.model.dimensions,
            normalised=bool(served.model.normalised),
            input_type=served.forwarded(input_type),
            input_types=served.deployment.input_types,
            extra=served.deployment.parameters,
        )

    async def _asked(self, tally: Tally, batch: Batch) -> tuple[Vectors, frozenset[str]]:
        """The vectors of `batch`, checked, and the names by which the answers call the model."""
        served = tally.served
        limits = limits_of(served, self._engines[engine_of(served)].limits)
        parts = plan.cut(batch.tokens, max_items=limits.max_items, max_tokens=limits.max_tokens)
        results = [await self._call(tally, batch.part(start, end)) for start, end in parts]
        if len({result.vectors.shape[1] for result in results}) > 1:
            raise ProviderError("malformed", "vectors of different widths", billed="yes")
        whole = np.concatenate([result.vectors for result in results])
        return whole, frozenset(result.model for result in results if result.model)

    async def _call(self, tally: Tally, batch: Batch) -> Result:
        began_s = self._calls.now_s()
        outcome: Outcome = "not sent"
        self._calls.began(tally.served)
        try:
            outcome = result = await _answer(self._engines[engine_of(tally.served)], batch)
        except ProviderError as error:
            outcome = error
            raise
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        except EmbedwayError as error:
            kind = "overloaded" if isinstance(error, Overloaded) else "failed"
            raise ProviderError(kind, str(error), billed="not sent") from error
        finally:
            seconds = self._calls.now_s() - began_s
            self._calls.ended(tally, batch, outcome, seconds, request_id=PROBE)
        return result


async def _answer(engine: Engine, batch: Batch) -> Result:
    try:
        async with asyncio.timeout(TIMEOUT_S):
            result = await engine.embed(batch)
    except TimeoutError:
        raise ProviderError("timeout", billed="maybe") from None
    return checked(result, batch)
