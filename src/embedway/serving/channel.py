"""Questions and answers between the processes of one gateway, over a pair of sockets.

Both ends are processes that this program started from its own code, so what they send each other
may be any Python object.
"""

import asyncio
import pickle
import socket
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from itertools import count
from struct import Struct
from typing import Any

import structlog

from embedway.core.errors import EmbedwayError

_LENGTH = Struct("=I")
_RESULT, _ERROR = "result", "error"
"""The names of answers, which no question has."""

_log = structlog.get_logger("embedway.serve")

Answer = Callable[[Any, Any], Awaitable[Any]]
"""Answers a question, which has a name and a content. What it raises is raised at the other end."""


class OrderFailed(Exception):
    """An order could not be carried out; the message is for the operator."""


class ChannelClosed(Exception):
    """The process at the other end has ended."""


class Channel:
    """One end of a connection. Each end may ask, and many questions may be open at once."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._numbers = count()
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._writer: asyncio.StreamWriter | None = None
        self.closed = asyncio.Event()
        """Is set once the other end is closed."""

    async def open(self, end: socket.socket) -> None:
        """Begin to read and answer, at this end of a pair of sockets."""
        reader, self._writer = await asyncio.open_unix_connection(sock=end)
        self._start(self._read(reader))

    def close(self) -> None:
        """Close this end; questions that are open raise `ChannelClosed`."""
        self.closed.set()
        if self._writer:
            self._writer.close()
        for each in self._asked.values():
            if not each.done():
                each.set_exception(ChannelClosed())

    async def ask(self, question: str, content: Any = None) -> Any:
        """Ask the other end, and return its answer.

        Raises:
            ChannelClosed: The other end has ended before it answered.
            Exception: Whatever answering raised.
        """
        number = next(self._numbers)
        answer = self._asked[number] = asyncio.get_running_loop().create_future()
        try:
            self._send(question, number, content)
            return await answer
        finally:
            del self._asked[number]

    def _send(self, name: str, number: int, content: Any) -> None:
        if self.closed.is_set() or self._writer is None:
            raise ChannelClosed
        data = pickle.dumps((name, number, content))
        self._writer.write(_LENGTH.pack(len(data)) + data)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                [length] = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
                message = await reader.readexactly(length)
                name, number, content = pickle.loads(message)  # noqa: S301  # from our own code
                if name not in {_RESULT, _ERROR}:
                    self._start(self._reply(name, number, content))
                elif (asked := self._asked.get(number)) and not asked.done():
                    asked.set_result(content) if name == _RESULT else asked.set_exception(content)
        except (EOFError, OSError):
            pass
        finally:
            self.close()

    async def _reply(self, question: str, number: int, content: Any) -> None:
        try:
            name, answer = _RESULT, await self._answer(question, content)
        except (EmbedwayError, OrderFailed) as error:
            name, answer = _ERROR, error
        except Exception as error:  # noqa: BLE001  # whoever asked gets it
            _log.exception("a question between processes failed", question=question)
            name, answer = _ERROR, RuntimeError(repr(error))
        with suppress(ChannelClosed):
            self._send(name, number, answer)
