"""Embeds with a model in this process.

One thread tokenises, and one thread of each lane runs the model, while the event loop waits. All
requests share both queues.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray

from embedway.concurrency.group_worker import EqualShares, GroupWorker
from embedway.core.batch import Batch, BatchLimits, BatchResult, EngineAbilities
from embedway.core.errors import EmbedwayError
from embedway.core.provider_error import ProviderError
from embedway.local.openvino import OpenVinoEncoder
from embedway.local.packing import RowQueue
from embedway.local.tokenizer import ModelTokenizer

GROUP_CHARACTERS = 65_536
"""The most characters to tokenise in one turn, so that a small request waits only a moment."""

# Two of the largest requests may wait (300,000 tokens each). Further ones are refused.
MAX_WAITING_TOKENS = 600_000
MAX_WAITING_CHARACTERS = 64 * 2**20


class LocalEngine:
    """One local model, shared by all requests."""

    def __init__(
        self,
        tokenizer: ModelTokenizer,
        encoder: OpenVinoEncoder,
        *,
        on_batch: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Start the threads. The model's threads call `on_batch` with the items of each row."""
        self._tokenizer = tokenizer
        self._encoder = encoder
        self._on_batch = on_batch
        self._tokenising = GroupWorker[str, list[int]](
            self._tokenize_group,
            name="tokenizer",
            queue=EqualShares(GROUP_CHARACTERS),
            max_waiting_weight=MAX_WAITING_CHARACTERS,
            weigh=len,
        )
        self._embedding = GroupWorker[Sequence[int], NDArray[np.float32]](
            self._embed_row,
            name="model",
            queue=RowQueue(),
            max_waiting_weight=MAX_WAITING_TOKENS,
            weigh=len,
            lanes=encoder.lanes,
        )

    @property
    def limits(self) -> BatchLimits:
        """The default limits. The model's threads fill rows of their own, across requests."""
        return BatchLimits()

    @property
    def abilities(self) -> EngineAbilities:
        """What a batch may ask for: it has the token ids that `encode` returns."""
        return EngineAbilities(token_ids=True)

    async def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text, as `Tokenizer.encode` describes."""
        return await self._tokenising.submit(texts)

    async def embed(self, batch: Batch) -> BatchResult:
        """Embed a batch of token ids, as `Engine.embed` describes."""
        items = cast("list[list[int]]", batch.items)
        try:
            rows = await self._embedding.submit(items, tenant=batch.tenant)
            return BatchResult(vectors=np.stack(rows), tokens=sum(batch.tokens))
        except EmbedwayError:  # a full queue
            raise
        except Exception as error:  # whatever the model's libraries raise
            raise ProviderError("failed", billed="maybe") from error

    @property
    def waiting_tokens(self) -> int:
        """The tokens that wait for the model."""
        return self._embedding.waiting_weight

    @property
    def alive(self) -> bool:
        """Whether all threads are running."""
        return self._tokenising.is_alive and self._embedding.is_alive

    def close(self) -> None:
        """Finish the queued work and end the threads."""
        self._tokenising.close()
        self._embedding.close()

    def _tokenize_group(
        self, texts: list[str]
    ) -> Iterator[tuple[Sequence[int], Sequence[list[int]]]]:
        yield range(len(texts)), self._tokenizer.encode(texts)

    def _embed_row(
        self, items: list[Sequence[int]]
    ) -> Iterator[tuple[Sequence[int], Sequence[NDArray[np.float32]]]]:
        self._on_batch(len(items))
        yield range(len(items)), list(self._encoder.encode(items))
