"""A model in this process: its tokenizer, its queue and its batches, behind the `Engine` port.

Two threads do the work, one that tokenises and one that runs the model; the event loop only waits.
Requests share both queues. Knows nothing of keys, limits or HTTP.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray

from embedway.concurrency.group_worker import GroupWorker
from embedway.core.batch import Batch, BatchLimits, BatchResult, EngineAbilities
from embedway.core.errors import EmbedwayError
from embedway.core.provider_error import ProviderError
from embedway.local.openvino import OpenVinoEncoder
from embedway.local.tokenizer import ModelTokenizer

# A group is what one turn of the queue works on: long enough to sort into full batches, short
# enough that a small request behind a large one waits a fraction of a second.
GROUP_CHARACTERS = 65_536
GROUP_TOKENS = 8_192
BATCH_TOKENS = 2_048
"""Tokens in one run of the model, padding included."""

# Two of the largest requests may wait (300,000 tokens each); what comes on top is refused.
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
        """Starts its threads.

        Args:
            tokenizer: Used by one thread only.
            encoder: Used by one thread only.
            on_batch: Called in that thread with the item count of each batch.
        """
        self._tokenizer = tokenizer
        self._encoder = encoder
        self._on_batch = on_batch
        self._tokenising = GroupWorker[str, list[int]](
            self._tokenize_group,
            name="tokenizer",
            group_weight=GROUP_CHARACTERS,
            max_waiting_weight=MAX_WAITING_CHARACTERS,
            weigh=len,
        )
        self._embedding = GroupWorker[Sequence[int], NDArray[np.float32]](
            self._embed_group,
            name="model",
            group_weight=GROUP_TOKENS,
            max_waiting_weight=MAX_WAITING_TOKENS,
            weigh=len,
        )

    @property
    def limits(self) -> BatchLimits:
        """None: the model's thread cuts its own batches, across requests."""
        return BatchLimits()

    @property
    def abilities(self) -> EngineAbilities:
        """It takes the ids that `encode` gives."""
        return EngineAbilities(token_ids=True)

    async def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """See `embedway.tokenizing.tokenizer.ModelTokenizer.encode`."""
        return await self._tokenising.submit(texts)

    async def embed(self, batch: Batch) -> BatchResult:
        """See `embedway.sending.engine.Engine.embed`; items are token ids."""
        items = cast("list[list[int]]", batch.items)
        try:
            rows = await self._embedding.submit(items)
            return BatchResult(vectors=np.stack(rows), tokens=sum(batch.tokens))
        except EmbedwayError:  # a full queue
            raise
        except Exception as error:  # what the model's libraries raise is theirs to say
            raise ProviderError("failed", billed="maybe") from error

    @property
    def waiting_tokens(self) -> int:
        """Tokens that wait for the model."""
        return self._embedding.waiting_weight

    @property
    def alive(self) -> bool:
        """Whether requests get answered."""
        return self._tokenising.is_alive and self._embedding.is_alive

    def close(self) -> None:
        """Finishes what waits and ends the threads."""
        self._tokenising.close()
        self._embedding.close()

    def _tokenize_group(
        self, texts: list[str]
    ) -> Iterator[tuple[Sequence[int], Sequence[list[int]]]]:
        yield range(len(texts)), self._tokenizer.encode(texts)

    def _embed_group(
        self, items: list[Sequence[int]]
    ) -> Iterator[tuple[Sequence[int], Sequence[NDArray[np.float32]]]]:
        lengths = [len(item) for item in items]
        for batch in group_by_length(lengths, max_tokens=BATCH_TOKENS, whole=self._encoder.whole):
            self._on_batch(len(batch))
            yield batch, list(self._encoder.encode([items[position] for position in batch]))


def group_by_length(
    lengths: Sequence[int], *, max_tokens: int, whole: Callable[[int], int]
) -> Iterator[list[int]]:
    """Positions in `lengths` cut into batches of like length, shortest first.

    A batch is as wide as its longest item, so what counts against `max_tokens` is items times
    that length. A batch has at least one item.

    Args:
        lengths: Tokens of each item.
        max_tokens: In a batch, padding included.
        whole: The most of so many items that run without dummy ones; the rest waits its turn.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    start = 0
    while start < len(order):
        end = start + 1
        while end < len(order) and (end + 1 - start) * lengths[order[end]] <= max_tokens:
            end += 1
        if end < len(order):
            end = start + whole(end - start)
        yield order[start:end]
        start = end
