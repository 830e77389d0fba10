"""Embeds with a model in this process.

One thread tokenises and one runs the model, while the event loop waits. All requests share both
queues.
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

# A group is the work of one turn: large enough to sort into full batches, small enough that a small
# request behind a large one waits only a fraction of a second.
GROUP_CHARACTERS = 65_536
GROUP_TOKENS = 8_192
BATCH_TOKENS = 2_048
"""The most tokens in one run of the model, padding included."""

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
        """Start the threads. The model's thread calls `on_batch` with the items of each batch."""
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
        """The default limits. The model's thread makes batches of its own, across requests."""
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
            rows = await self._embedding.submit(items)
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
        """Whether both threads are running."""
        return self._tokenising.is_alive and self._embedding.is_alive

    def close(self) -> None:
        """Finish the queued work and end the threads."""
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
        for batch in group_by_length(
            lengths, max_tokens=BATCH_TOKENS, round_down=self._encoder.round_down
        ):
            self._on_batch(len(batch))
            yield batch, list(self._encoder.encode([items[position] for position in batch]))


def group_by_length(
    lengths: Sequence[int], *, max_tokens: int, round_down: Callable[[int], int]
) -> Iterator[list[int]]:
    """Group the positions of `lengths` into batches of similar length, shortest first.

    Items are padded to the longest of their batch, so a batch costs its number of items times that
    length. A batch has at least one item.

    Args:
        lengths: The tokens of each item.
        max_tokens: The most tokens of a batch, padding included.
        round_down: Returns the largest batch, up to a number of items, that needs no dummy items.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    start = 0
    while start < len(order):
        end = start + 1
        while end < len(order) and (end + 1 - start) * lengths[order[end]] <= max_tokens:
            end += 1
        if end < len(order):
            end = start + round_down(end - start)
        yield order[start:end]
        start = end
