"""Embeds with a model in the process beside this worker that all workers share."""

import asyncio
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import count

import msgspec
import numpy as np
from numpy.typing import NDArray

from embedway.core.errors import ServiceOverloaded
from embedway.core.provider_error import ProviderError
from embedway.local.frames import (
    BUFFER_BYTES,
    Kind,
    decode_vectors,
    encode_request,
    frame,
    read_frame,
)

PAUSE_S = 0.05
"""The pause before connecting again."""
GIVE_UP_S = 10.0
"""How long requests wait for a process that has ended and is being started again."""

GONE = "the process of the local models has ended"


class _Waiting(msgspec.Struct, eq=False):
    """A request that waits for its answer."""

    frame: bytes
    answer: asyncio.Future[NDArray[np.float32]]
    was_lost: bool = False
    """Whether the process ended once before it answered."""


class ModelConnection:
    """This worker's connection to the process of the local models.

    If that process ends, requests in flight wait for the next one and are sent to it, once: a
    request that ends the process twice may be the cause.
    """

    def __init__(self, path: str) -> None:
        """Prepare to connect to the socket at `path`."""
        self._path = path
        self._numbers = count(1)
        self._waiting: dict[int, _Waiting] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._lost_s: float | None = time.monotonic()
        """Since when there is no connection, by the monotonic clock; None while there is one."""
        self._running: asyncio.Task[None] | None = None
        self._giving_up: asyncio.TimerHandle | None = None

    async def open(self) -> None:
        """Connect, and wait until the models are loaded."""
        ready = asyncio.Event()
        self._running = asyncio.create_task(self._run(ready))
        await ready.wait()

    async def aclose(self) -> None:
        """Hang up."""
        if self._giving_up:
            self._giving_up.cancel()
        if self._running:
            self._running.cancel()
            with suppress(asyncio.CancelledError):
                await self._running

    @property
    def is_alive(self) -> bool:
        """Whether the process answers, or ended so short ago that it may soon be back."""
        return self._lost_s is None or time.monotonic() - self._lost_s < GIVE_UP_S

    async def embed(
        self, items: Sequence[Sequence[int]], *, model: str, tenant: str
    ) -> NDArray[np.float32]:
        """Return the vectors of token ids, float32 [len(items), dimensions], in order.

        Cancelling it drops what the model has not begun.

        Raises:
            ServiceOverloaded: Too much is waiting there.
            ProviderError: The model failed, or the process is gone and does not come back.
        """
        if not self.is_alive:
            raise ProviderError("unreachable", GONE)
        number = next(self._numbers) % 2**32
        answer = asyncio.get_running_loop().create_future()
        content = encode_request(number, model=model, tenant=tenant, items=items)
        self._waiting[number] = _Waiting(content, answer)
        self._send(content)
        try:
            return await answer
        finally:
            if self._waiting.pop(number, None) and answer.cancelled():
                self._send(frame(Kind.CANCEL, number))

    def _send(self, content: bytes) -> None:
        if self._writer is not None:
            self._writer.write(content)

    async def _run(self, ready: asyncio.Event) -> None:
        while True:
            with suppress(OSError, EOFError):
                reader, writer = await asyncio.open_unix_connection(self._path, limit=BUFFER_BYTES)
                try:
                    await self._receive(reader, writer, ready)
                finally:
                    self._writer = None
                    writer.close()
            if self._lost_s is None:
                self._lost_s = time.monotonic()
                self._fail([each for each in self._waiting.values() if each.was_lost])
                for each in self._waiting.values():
                    each.was_lost = True
                loop = asyncio.get_running_loop()
                self._giving_up = loop.call_later(
                    GIVE_UP_S, lambda: self._fail(self._waiting.values())
                )
            await asyncio.sleep(PAUSE_S)

    async def _receive(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ready: asyncio.Event
    ) -> None:
        await read_frame(reader)  # says that the models are loaded
        self._writer, self._lost_s = writer, None
        if self._giving_up:
            self._giving_up.cancel()
        ready.set()
        for each in self._waiting.values():
            if not each.answer.done():
                writer.write(each.frame)
        while True:
            kind, number, rest = await read_frame(reader)
            waiting = self._waiting.pop(number, None)
            if waiting is None or waiting.answer.done():
                continue
            if kind == Kind.VECTORS:
                waiting.answer.set_result(decode_vectors(rest))
            elif kind == Kind.OVERLOADED:
                waiting.answer.set_exception(ServiceOverloaded(rest.decode()))
            else:
                failure = ProviderError("failed", rest.decode(), billed="maybe")
                waiting.answer.set_exception(failure)

    @staticmethod
    def _fail(requests: Iterable[_Waiting]) -> None:
        for each in requests:
            if not each.answer.done():
                each.answer.set_exception(ProviderError("unreachable", GONE))


class ConnectedModel:
    """A `LocalModel` in the process beside this worker."""

    def __init__(self, id: str, connection: ModelConnection) -> None:
        self._id = id
        self._connection = connection

    async def embed(self, items: Sequence[Sequence[int]], *, tenant: str) -> NDArray[np.float32]:
        """Return the vectors of token ids, as `LocalModel.embed` describes."""
        return await self._connection.embed(items, model=self._id, tenant=tenant)

    @property
    def waiting_tokens(self) -> int:
        """Always 0: what waits, waits in the other process, which counts it."""
        return 0

    @property
    def is_alive(self) -> bool:
        """Whether the other process can be reached, or may soon be back."""
        return self._connection.is_alive

    def close(self) -> None:
        """Do nothing: the connection serves other models too."""
