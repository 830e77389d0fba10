"""Embeds texts for a corpus: waits for providers and rate limits, and finds the texts at fault."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import msgspec
import numpy as np

from embedway.core.errors import (
    InvalidRequest,
    RateLimitExceeded,
    ServiceOverloaded,
    UpstreamError,
)
from embedway.core.money import NanoUsd
from embedway.core.vectors import Vectors

UPSTREAM_WAITS_S = (1.0, 5.0, 15.0, 60.0)
"""How long to wait each time before texts are sent again whose provider failed."""


class EmbeddingResult(msgspec.Struct, frozen=True, kw_only=True):
    """What came back for some texts."""

    vectors: Vectors
    """Shape (texts, dimensions), float32."""
    tokens: int
    cost_nano_usd: NanoUsd


class Embed(Protocol):
    """Embeds texts once."""

    def __call__(self, texts: Sequence[str]) -> Awaitable[EmbeddingResult]:
        """Return the vectors of texts.

        Raises:
            EmbedwayError: The texts cannot be embedded, or not now.
        """
        ...


class EmbeddedTexts(msgspec.Struct, frozen=True, kw_only=True):
    """What came of some texts, each of which is embedded or refused."""

    vectors: Vectors
    """Shape (embedded texts, dimensions), in the order of the texts."""
    refused: dict[int, str]
    """Why a text is refused, by its index."""
    tokens: int = 0
    cost_nano_usd: NanoUsd = 0


class PatientEmbedder:
    """Embeds texts, again and again where that may help."""

    def __init__(
        self,
        embed: Embed,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        on_wait: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Embed by `embed`; tell `on_wait` why there is a wait."""
        self._embed = embed
        self._sleep = sleep
        self._on_wait = on_wait

    async def embed(self, texts: Sequence[str]) -> EmbeddedTexts:
        """Embed texts; refuse those that cannot be embedded.

        Raises:
            EmbedwayError: The model cannot be used, or its provider fails for minutes.
        """
        try:
            found = await self._embed_patiently(texts)
        except InvalidRequest as error:
            if len(texts) == 1:
                none = np.empty((0, 0), np.float32)
                return EmbeddedTexts(vectors=none, refused={0: error.message})
            half = len(texts) // 2
            first = await self.embed(texts[:half])
            second = await self.embed(texts[half:])
            return _join(first, second, half)
        return EmbeddedTexts(
            vectors=found.vectors,
            refused={},
            tokens=found.tokens,
            cost_nano_usd=found.cost_nano_usd,
        )

    async def _embed_patiently(self, texts: Sequence[str]) -> EmbeddingResult:
        upstream_waits_s = list(UPSTREAM_WAITS_S)
        while True:
            try:
                return await self._embed(texts)
            except (RateLimitExceeded, ServiceOverloaded) as error:
                wait_ms = error.headers.get("retry-after-ms")
                if wait_ms is None:
                    raise
                self._on_wait(error.message)
                await self._sleep(int(wait_ms) / 1000)
            except UpstreamError as error:
                if not upstream_waits_s:
                    raise
                self._on_wait(error.message)
                await self._sleep(upstream_waits_s.pop(0))


def _join(first: EmbeddedTexts, second: EmbeddedTexts, offset: int) -> EmbeddedTexts:
    found = [each.vectors for each in (first, second) if len(each.vectors)]
    return EmbeddedTexts(
        vectors=np.concatenate(found) if found else first.vectors,
        refused=first.refused | {offset + at: why for at, why in second.refused.items()},
        tokens=first.tokens + second.tokens,
        cost_nano_usd=first.cost_nano_usd + second.cost_nano_usd,
    )
