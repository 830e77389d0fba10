"""Embeds any number of inputs: cuts them into requests, runs some at once, and joins in order."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Sequence,
    Sized,
)
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import aclosing, closing
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from embedway_sdk.client import Call, Client
from embedway_sdk.errors import EmbedwayError, SpaceMismatchError
from embedway_sdk.vectors import Embedding, EmbeddingsResponse

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Item = str | Sequence[int]

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
        if not hasattr(item, "__len__"):
            raise TypeError(f"embed_many takes texts or lists of token ids, not {item!r:.60}.")
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
        self.space: str | None = None
        """The vector space of all vectors; None before the first arrives."""
        self.dimensions: int | None = None
        """The width of all vectors; None before the first arrives."""
        self.items = 0
        """How many vectors arrived so far."""
        self.tokens = 0
        """The tokens of these, as counted by the gateway."""
        self.cost_usd = Decimal(0)
        """What these cost."""

    def __iter__(self) -> Iterator[Embedding]:
        with closing(self._responses()) as responses:
            for start, response in responses:
                for each in response.data:
                    each.index += start
                    yield each

    async def __aiter__(self) -> AsyncIterator[Embedding]:
        async with aclosing(self._responses_async()) as responses:
            async for start, response in responses:
                for each in response.data:
                    each.index += start
                    yield each

    def numpy(self) -> NDArray[np.float32]:
        """Embed all inputs; return one array of shape [items, dimensions], float32."""
        return _join([response.numpy() for _, response in self._responses()])

    async def numpy_async(self) -> NDArray[np.float32]:
        """Embed all inputs; return one array of shape [items, dimensions], float32."""
        async with aclosing(self._responses_async()) as responses:
            return _join([response.numpy() async for _, response in responses])

    def _responses(self) -> Generator[tuple[int, EmbeddingsResponse], None, None]:
        """Yield the answers in order, each with the index of its first input.

        At most twice `concurrency` requests are in memory: running, or waiting for their turn.
        """
        self._begin()
        if isinstance(self._inputs, AsyncIterable):
            raise TypeError("The inputs are asynchronous. Read the result with async for.")
        window: deque[Future[EmbeddingsResponse]] = deque()
        pool = ThreadPoolExecutor(self._concurrency, thread_name_prefix="embed_many")
        stop = threading.Event()
        pieces = _cut(Cutter(self._max_items), self._inputs)
        failure: Exception | None = None
        is_over = False
        try:
            while not is_over:
                try:
                    window.append(
                        pool.submit(self._client.run, self._call(next(pieces)), stop=stop)
                    )
                except StopIteration:
                    is_over = True
                except Exception as error:  # noqa: BLE001 - it comes after the results before it
                    is_over, failure = True, error
                while window and (is_over or self._is_full(window) or window[0].done()):
                    yield self._accept(window.popleft().result)
        finally:
            # No thread is left behind: what is under way ends, and nothing is tried again.
            stop.set()
            pool.shutdown(cancel_futures=True)
        if failure:
            raise failure

    async def _responses_async(
        self,
    ) -> AsyncGenerator[tuple[int, EmbeddingsResponse], None]:
        self._begin()
        window: deque[asyncio.Task[EmbeddingsResponse]] = deque()
        slots = asyncio.Semaphore(self._concurrency)
        pieces = _cut_async(Cutter(self._max_items), self._inputs)
        failure: Exception | None = None
        is_over = False

        async def run(items: list[Item]) -> EmbeddingsResponse:
            async with slots:
                return await self._client.run_async(self._call(items))

        async def read() -> list[Item]:
            return await anext(pieces)

        reading: asyncio.Task[list[Item]] | None = None
        try:
            while window or not is_over:
                if not (is_over or reading or self._is_full(window)):
                    reading = asyncio.create_task(read())
                waited = [task for task in (reading, *list(window)[:1]) if task]
                await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
                if reading and reading.done():
                    try:
                        window.append(asyncio.create_task(run(reading.result())))
                    except StopAsyncIteration:
                        is_over = True
                    except Exception as error:  # noqa: BLE001 - likewise
                        is_over, failure = True, error
                    reading = None
                while window and window[0].done():
                    yield self._accept(window.popleft().result)
        finally:
            await _cancel([*window, *([reading] if reading else [])])
            await pieces.aclose()
        if failure:
            raise failure

    def _is_full(self, window: Sized) -> bool:
        return len(window) >= 2 * self._concurrency

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
        except EmbedwayError as error:
            error.first_index = start
            if start:
                error.args = (f"{error} (In the request whose first input has index {start}.)",)
            raise
        if response.space is None:
            raise SpaceMismatchError("An answer names no space, so its vectors cannot be joined.")
        if self.items == 0:
            self.space, self.dimensions = response.space, response.dimensions
        elif response.space != self.space:
            raise SpaceMismatchError(
                f"The inputs from {start} on have vectors of the space {response.space!r}, those "
                f"before of {self.space!r}. Embed all again, with a model that names one provider."
            )
        elif response.dimensions != self.dimensions:
            raise SpaceMismatchError(
                f"The inputs from {start} on have vectors of {response.dimensions} dimensions, "
                f"those before of {self.dimensions}."
            )
        self.items += len(response.data)
        self.tokens += response.usage.total_tokens
        self.cost_usd += response.cost_usd or 0
        if self._on_progress:
            self._on_progress(Progress(self.items, self._total, self.tokens, self.cost_usd))
        return start, response


async def _cancel(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Cancel tasks, and wait until they have ended."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _cut(cutter: Cutter, inputs: Iterable[Item]) -> Iterator[list[Item]]:
    for item in inputs:
        if full := cutter.add(item):
            yield full
    if rest := cutter.rest():
        yield rest


async def _cut_async(
    cutter: Cutter, inputs: Iterable[Item] | AsyncIterable[Item]
) -> AsyncGenerator[list[Item], None]:
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
