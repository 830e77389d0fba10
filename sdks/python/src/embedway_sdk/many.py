"""Embeds any number of inputs: cuts them into requests, runs some at once, and joins in order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeVar

from embedway_sdk.client import Call, Client
from embedway_sdk.errors import APIError, SpaceMismatchError
from embedway_sdk.vectors import Embedding, EmbeddingsResponse

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Item = str | Sequence[int]
T = TypeVar("T")

MAX_SIZE = 262_144
"""The most UTF-8 bytes of texts, or token ids, of one request. A text has at most one token for
each byte, so that a request stays below the gateway's 300,000 tokens."""


@dataclass(frozen=True)
class Progress:
    """How far `embed_many` is."""

    items: int
    """Inputs whose vectors arrived."""
    total: int | None
    """All inputs; None if they are not counted yet, as those of a generator."""
    tokens: int
    cost_usd: Decimal


class Cutter:
    """Collects inputs into requests that keep within `max_items` and `MAX_SIZE`."""

    def __init__(self, max_items: int) -> None:
        self._max_items = max_items
        self._items: list[Item] = []
        self._size = 0

    def add(self, item: Item) -> list[Item] | None:
        """Add an input; return the request that is full before it, or None."""
        size = len(item)
        if isinstance(item, str) and not item.isascii():
            size = len(item.encode(errors="surrogatepass"))
        full = None
        if self._items and (len(self._items) == self._max_items or self._size + size > MAX_SIZE):
            full = self.rest()
        self._items.append(item)
        self._size += size
        return full

    def rest(self) -> list[Item]:
        """Return the inputs that are left, and begin again."""
        items, self._items, self._size = self._items, [], 0
        return items


class EmbedMany:
    """The vectors of any number of inputs, in their order, each once.

    Read it with `for` or `numpy()`, or with `async for` or `await numpy_async()`. It can be read
    once, because reading sends the requests.
    """

    def __init__(
        self,
        client: Client,
        call: Callable[[list[Item]], Call[EmbeddingsResponse]],
        inputs: Iterable[Item] | AsyncIterable[Item],
        *,
        concurrency: int,
        max_items: int,
        on_progress: Callable[[Progress], object] | None,
    ) -> None:
        if isinstance(inputs, (str, bytes)):
            raise TypeError(
                "embed_many takes many inputs, not one text. Use embed, or pass a list."
            )
        if concurrency < 1 or max_items < 1:
            raise ValueError("concurrency and max_items must be at least 1.")
        self._client = client
        self._call = call
        self._inputs = inputs
        self._concurrency = concurrency
        self._max_items = max_items
        self._on_progress = on_progress
        self._total = len(inputs) if isinstance(inputs, Sequence) else None
        self._is_read = False
        self._first: EmbeddingsResponse | None = None
        self.items = 0
        """How many vectors arrived so far."""
        self.tokens = 0
        """The tokens of these, as counted by the gateway."""
        self.cost_usd = Decimal(0)
        """What these cost."""

    @property
    def space(self) -> str | None:
        """The vector space of all vectors; None before the first arrives."""
        return self._first.space if self._first else None

    def __iter__(self) -> Iterator[Embedding]:
        for start, response in self._responses():
            for each in response.data:
                each.index += start
                yield each

    async def __aiter__(self) -> AsyncIterator[Embedding]:
        async for start, response in self._responses_async():
            for each in response.data:
                each.index += start
                yield each

    def numpy(self) -> NDArray[np.float32]:
        """Embed all inputs; return one array of shape [items, dimensions], float32."""
        return _join([response.numpy() for _, response in self._responses()])

    async def numpy_async(self) -> NDArray[np.float32]:
        """Embed all inputs; return one array of shape [items, dimensions], float32."""
        return _join([response.numpy() async for _, response in self._responses_async()])

    def _responses(self) -> Iterator[tuple[int, EmbeddingsResponse]]:
        """Yield the answers in order, each with the index of its first input.

        At most twice `concurrency` requests are in memory: running, or waiting for their turn.
        """
        self._begin()
        if isinstance(self._inputs, AsyncIterable):
            raise TypeError("The inputs are asynchronous. Read the result with async for.")
        cutter = Cutter(self._max_items)
        window: deque[Future[EmbeddingsResponse]] = deque()
        pool = ThreadPoolExecutor(self._concurrency, thread_name_prefix="embed_many")
        try:
            for items in _cut(cutter, self._inputs):
                window.append(pool.submit(self._client.run, self._call(items)))
                if len(window) == 2 * self._concurrency:
                    yield self._accept(window.popleft().result)
            while window:
                yield self._accept(window.popleft().result)
        finally:
            pool.shutdown(cancel_futures=True)

    async def _responses_async(self) -> AsyncIterator[tuple[int, EmbeddingsResponse]]:
        self._begin()
        cutter = Cutter(self._max_items)
        window: deque[asyncio.Task[EmbeddingsResponse]] = deque()
        slots = asyncio.Semaphore(self._concurrency)

        async def run(items: list[Item]) -> EmbeddingsResponse:
            async with slots:
                return await self._client.run_async(self._call(items))

        async def head() -> tuple[int, EmbeddingsResponse]:
            await asyncio.wait([window[0]])
            return self._accept(window.popleft().result)

        try:
            async for items in _cut_async(cutter, self._inputs):
                window.append(asyncio.create_task(run(items)))
                if len(window) == 2 * self._concurrency:
                    yield await head()
            while window:
                yield await head()
        finally:
            for task in window:
                task.cancel()
            await asyncio.gather(*window, return_exceptions=True)

    def _begin(self) -> None:
        if self._is_read:
            raise RuntimeError(
                "These vectors were read already. Call embed_many again, which bills."
            )
        self._is_read = True

    def _accept(self, result: Callable[[], EmbeddingsResponse]) -> tuple[int, EmbeddingsResponse]:
        """Count the next answer, and return it with the index of its first input.

        Raises:
            EmbedwayError: Its request failed, or its vectors are of another space than the first's.
        """
        start = self.items
        try:
            response = result()
        except APIError as error:
            error.first_index = start
            if start:
                error.args = (f"{error} (In the request whose first input has index {start}.)",)
            raise
        first = self._first
        if first is None:
            self._first = response
        elif response.space is None or response.space != first.space:
            raise SpaceMismatchError(
                f"The inputs from {start} on have vectors of the space {response.space!r}, those "
                f"before of {first.space!r}. Embed all again, with a model that names one provider."
            )
        elif response.dimensions != first.dimensions:
            raise SpaceMismatchError(
                f"The inputs from {start} on have vectors of {response.dimensions} dimensions, "
                f"those before of {first.dimensions}."
            )
        self.items += len(response.data)
        self.tokens += response.usage.total_tokens
        self.cost_usd += response.cost_usd or 0
        if self._on_progress:
            self._on_progress(Progress(self.items, self._total, self.tokens, self.cost_usd))
        return start, response


def _cut(cutter: Cutter, inputs: Iterable[Item]) -> Iterator[list[Item]]:
    for item in inputs:
        if full := cutter.add(item):
            yield full
    if rest := cutter.rest():
        yield rest


async def _cut_async(
    cutter: Cutter, inputs: Iterable[Item] | AsyncIterable[Item]
) -> AsyncIterator[list[Item]]:
    if isinstance(inputs, AsyncIterable):
        async for item in inputs:
            if full := cutter.add(item):
                yield full
        if rest := cutter.rest():
            yield rest
    else:
        for full in _cut(cutter, inputs):
            yield full


def _join(arrays: list[Any]) -> Any:
    import numpy as np  # noqa: PLC0415

    return np.concatenate(arrays) if arrays else np.empty((0, 0), np.float32)
