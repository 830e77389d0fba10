"""Embeds with a model in this process.

One thread tokenises, and one thread of each lane runs the model, while the event loop waits. All
requests share both queues.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from embedway.concurrency.group_worker import EqualShares, GroupWorker
from embedway.core.batch import Batch, BatchLimits, BatchResult, EngineAbilities
from embedway.core.errors import EmbedwayError
from embedway.core.provider_error import ProviderError
from embedway.local.packing import RowQueue
from embedway.local.tokenizer import ModelTokenizer

if TYPE_CHECKING:
    from embedway.local.openvino import OpenVinoEncoder

GROUP_CHARACTERS = 65_536
"""The most characters to tokenise in one turn, so that a small request waits only a moment."""

# Two of the largest requests may wait (300,000 tokens each). Further ones are refused.
MAX_WAITING_TOKENS = 600_000
MAX_WAITING_CHARACTERS = 64 * 2**20


class LocalModel(Protocol):
    """Turns token ids into vectors, in this process or in one beside it. All requests share it."""

    async def embed(self, items: Sequence[Sequence[int]], *, tenant: str) -> NDArray[np.float32]:
        """Return the vectors of token ids, float32 [len(items), dimensions], in order.

        Cancelling it drops what the model has not begun.

        Raises:
            ServiceOverloaded: Too much is waiting, or the model is closing.
            ProviderError: The model failed or cannot be reached.
        """
        ...

    @property
    def waiting_tokens(self) -> int:
        """The tokens that wait for the model in this process."""
        ...

    @property
    def is_alive(self) -> bool:
        """Whether it can embed."""
        ...

    def close(self) -> None:
        """Finish the queued work."""
        ...


class TokenizerThread:
    """Tokenises texts in a thread. All requests share its queue."""

    def __init__(self, tokenizer: ModelTokenizer) -> None:
        self._tokenizer = tokenizer
        self._worker = GroupWorker[str, list[int]](
            self._tokenize_group,
            name="tokenizer",
            queue=EqualShares(GROUP_CHARACTERS),
            max_waiting_weight=MAX_WAITING_CHARACTERS,
            weigh=len,
        )

    async def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text, as `Tokenizer.encode` describes."""
        return await self._worker.submit(texts)

    @property
    def is_alive(self) -> bool:
        """Whether the thread is running."""
        return self._worker.is_alive

    def close(self) -> None:
        """Finish the queued work and end the thread."""
        self._worker.close()

    def _tokenize_group(
        self, texts: list[str]
    ) -> Iterator[tuple[Sequence[int], Sequence[list[int]]]]:
        yield range(len(texts)), self._tokenizer.encode(texts)


class ModelThreads:
    """A `LocalModel` that runs in threads, one for each lane."""

    def __init__(
        self, encoder: "OpenVinoEncoder", *, on_batch: Callable[[int], None] = lambda _: None
    ) -> None:
        """Start the threads. They call `on_batch` with the items of each row."""
        self._encoder = encoder
        self._on_batch = on_batch
        self._worker = GroupWorker[Sequence[int], NDArray[np.float32]](
            self._embed_row,
            name="model",
            queue=RowQueue(),
            max_waiting_weight=MAX_WAITING_TOKENS,
            weigh=len,
            lanes=encoder.lanes,
        )

    async def embed(self, items: Sequence[Sequence[int]], *, tenant: str) -> NDArray[np.float32]:
        """Return the vectors of token ids, as `LocalModel.embed` describes."""
        try:
            return np.stack(await self._worker.submit(items, tenant=tenant))
        except EmbedwayError:  # a full queue
            raise
        except Exception as error:  # whatever the model's libraries raise
            raise ProviderError("failed", billed="maybe") from error

    @property
    def waiting_tokens(self) -> int:
        """The tokens that wait for the model."""
        return self._worker.waiting_weight

    @property
    def is_alive(self) -> bool:
        """Whether all threads are running."""
        return self._worker.is_alive

    def close(self) -> None:
        """Finish the queued work and end the threads."""
        self._worker.close()

    def _embed_row(
        self, items: list[Sequence[int]]
    ) -> Iterator[tuple[Sequence[int], Sequence[NDArray[np.float32]]]]:
        self._on_batch(len(items))
        yield range(len(items)), list(self._encoder.encode(items))


class LocalEngine:
    """Embeds texts with a local model. All requests share it."""

    def __init__(self, tokenizer: TokenizerThread, model: LocalModel) -> None:
        self._tokenizer = tokenizer
        self._model = model

    @property
    def limits(self) -> BatchLimits:
        """The default limits. The model fills rows of its own, across requests."""
        return BatchLimits()

    @property
    def abilities(self) -> EngineAbilities:
        """What a batch may ask for: it has the token ids that `encode` returns."""
        return EngineAbilities(token_ids=True)

    async def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text, as `Tokenizer.encode` describes."""
        return await self._tokenizer.encode(texts)

    async def embed(self, batch: Batch) -> BatchResult:
        """Embed a batch of token ids, as `Engine.embed` describes."""
        items = cast("list[list[int]]", batch.items)
        vectors = await self._model.embed(items, tenant=batch.tenant)
        return BatchResult(vectors=vectors, tokens=sum(batch.tokens))

    @property
    def waiting_tokens(self) -> int:
        """The tokens that wait for the model."""
        return self._model.waiting_tokens

    @property
    def alive(self) -> bool:
        """Whether the tokenizer's thread is running and the model can embed."""
        return self._tokenizer.is_alive and self._model.is_alive

    def close(self) -> None:
        """Finish the queued work and end the threads of this process."""
        self._tokenizer.close()
        self._model.close()
