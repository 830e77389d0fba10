"""One request and its answer, between ASGI and the bytes of HTTP/1.1."""

import asyncio
from collections import deque
from collections.abc import Awaitable
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Protocol

from embedway.api.asgi import Message

MAX_UNREAD_BYTES = 2**16
"""Stop reading from a client when this much of a body waits for the application."""

_DISCONNECT: Message = {"type": "http.disconnect"}
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_SIZES = frozenset({b"content-length", b"transfer-encoding"})
_NO_BODY = {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}


class Line(Protocol):
    """The connection that a request came by."""

    loop: asyncio.AbstractEventLoop
    ready: asyncio.Future[None]
    """A future that is done, for writes that need no waiting."""

    @property
    def is_stopping(self) -> bool:
        """Whether this is the last answer of the connection."""
        ...

    def write(self, *pieces: bytes) -> Awaitable[None]:
        """Write to the client; the result is done when it is not behind."""
        ...

    def date(self) -> bytes:
        """Return the header `date`."""
        ...

    def pause_reading(self) -> None:
        """Read nothing more from the client for now."""
        ...

    def resume_reading(self) -> None:
        """Go on reading from the client."""
        ...


class Exchange:
    """One request and its answer."""

    __slots__ = (
        *("_answer", "_chunks", "_connection", "_expects_continue", "_has_ended", "_is_chunked"),
        *("_receiving", "_unread_bytes", "has_started", "is_answered", "is_gone"),
        *("is_head_request", "is_whole", "keeps_alive", "scope", "task"),
    )

    def __init__(self, connection: Line, scope: dict[str, Any]) -> None:
        self.scope = scope
        self.task: asyncio.Task[None] | None = None
        self.keeps_alive = True
        self.is_head_request = scope["method"] == "HEAD"
        self.is_whole = False
        """Whether the request has arrived whole."""
        self.is_gone = False
        """Whether nothing more of the request will come, because the client left or broke it."""
        self.has_started = False
        """Whether a part of the answer was written."""
        self.is_answered = False
        """Whether the answer was written whole."""
        self._connection = connection
        self._chunks: deque[bytes] = deque()
        self._unread_bytes = 0
        self._has_ended = False
        """Whether the application has received the end of the request."""
        self._expects_continue = False
        self._receiving: asyncio.Future[Message] | None = None
        self._answer: Message | None = None
        """The start of the answer, until it is written."""
        self._is_chunked = False

    def expect_continue(self) -> None:
        """Invite the body once the application asks for it."""
        self._expects_continue = True

    def add(self, chunk: bytes) -> None:
        """Add a piece of the body."""
        self._expects_continue = False
        if self.is_answered:
            return
        self._chunks.append(chunk)
        self._unread_bytes += len(chunk)
        if self._unread_bytes > MAX_UNREAD_BYTES:
            self._connection.pause_reading()
        self._deliver()

    def end(self) -> None:
        """Note that the request is whole."""
        self.is_whole = True
        self._deliver()

    def leave(self) -> None:
        """Note that nothing more of the request will come."""
        self.is_gone = True
        self._deliver()

    def receive(self) -> Awaitable[Message]:
        """Return the next part of the request; ASGI's `receive`."""
        receiving = self._receiving = self._connection.loop.create_future()
        self._deliver()
        if self._expects_continue and not receiving.done():
            self._expects_continue = False
            self._connection.write(_CONTINUE)
        return receiving

    def send(self, message: Message) -> Awaitable[None]:
        """Write a part of the answer; ASGI's `send`. Waits while the client is behind.

        Raises:
            ConnectionResetError: The client has left, and more is to come.
        """
        if message["type"] == "http.response.start":
            self._answer = message
            return self._connection.ready
        if message["type"] != "http.response.body":
            raise ValueError(f"{message['type']!r} is not a message of HTTP")
        body, more = message.get("body", b""), message.get("more_body", False)
        if self._answer is not None:
            head = self._head(self._answer, body, more=more)
            self._answer, self.has_started = None, True
        else:
            head = b""
        if self.is_head_request:
            body = b""
        elif self._is_chunked:
            size = b"%x\r\n" % len(body)
            body = (size + body + b"\r\n" if body else b"") + (b"" if more else b"0\r\n\r\n")
        self.is_answered = not more
        if more and self.is_gone:
            raise ConnectionResetError("the client has left")
        written = self._connection.write(head, body)
        # A whole answer needs no waiting: the connection closes if the client does not take it.
        return self._connection.ready if head and not more else written

    def _deliver(self) -> None:
        receiving = self._receiving
        if receiving is None or receiving.done():
            return
        if self._chunks:
            # One message has all that has come, and usually the end as well.
            body = self._chunks.popleft() if len(self._chunks) == 1 else b"".join(self._chunks)
            self._chunks.clear()
            self._unread_bytes = 0
            self._has_ended = self.is_whole
            receiving.set_result(
                {"type": "http.request", "body": body, "more_body": not self.is_whole}
            )
            # Also after the end, because that is how the server notices that the client leaves.
            self._connection.resume_reading()
        elif self.is_whole and not self._has_ended:
            self._has_ended = True
            receiving.set_result({"type": "http.request", "body": b"", "more_body": False})
        elif self.is_gone:
            receiving.set_result(_DISCONNECT)

    def _head(self, start: Message, body: bytes, *, more: bool) -> bytes:
        status, headers = start["status"], start.get("headers", ())
        names = {name for name, _ in headers}  # ASGI has them in lower case
        if b"connection" in names:
            values = {value.lower() for name, value in headers if name == b"connection"}
            self.keeps_alive = self.keeps_alive and b"close" not in values
            headers = [each for each in headers if each[0] != b"connection"]
        lines = [status_line(status), *(b"%b: %b" % each for each in headers)]
        if status not in _NO_BODY and names.isdisjoint(_SIZES):
            lines += self._size(len(body), more=more)
        if b"date" not in names:
            lines.append(self._connection.date())
        if not self.is_whole or self._connection.is_stopping:
            self.keeps_alive = False
        if not self.keeps_alive:
            lines.append(b"connection: close")
        elif self.scope["http_version"] == "1.0":
            lines.append(b"connection: keep-alive")
        head = b"\r\n".join(lines)
        if head.count(b"\n") != len(lines) - 1 or head.count(b"\r") != len(lines) - 1:
            raise ValueError("a header of the answer would break its line")
        return head + b"\r\n\r\n"

    def _size(self, size: int, *, more: bool) -> list[bytes]:
        """Return the header that says where the answer ends, if the application did not."""
        if not more:
            return [b"content-length: %d" % size]
        if self.scope["http_version"] == "1.1":
            self._is_chunked = True
            return [b"transfer-encoding: chunked"]
        self.keeps_alive = False  # the end of the connection ends the answer
        return []


@lru_cache(maxsize=64)
def status_line(status: int) -> bytes:
    """Return the first line of an answer, without its end."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return f"HTTP/1.1 {status} {phrase}".encode("ascii")
