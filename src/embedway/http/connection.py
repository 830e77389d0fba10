"""One HTTP/1.1 connection to a server, which sends one call at a time.

Parsing is llhttp's, through httptools. This module decides when a reply is complete, how long it
may take, and whether the connection may be used again.
"""

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import cast

import httptools

from embedway.core.provider_error import ProviderError
from embedway.http.body_reader import MAX_PACKED_ERROR_BYTES, BodyReader, is_packed_error
from embedway.http.call import HttpReply

READ_TIMEOUT_S = 30.0
"""The longest pause within a reply. The caller's deadline bounds the reply as a whole."""
MAX_OVERHEAD_BYTES = 2**16
"""The most that a reply may have besides its body: hints, its head, trailers."""
JOINED_BYTES = 2**16
"""A call up to this size is copied into one piece, because one write is cheaper than two."""

LARGE_BYTES = 2**20
"""Join the pieces of a larger body in a thread: 39 MB would hold the event loop for 30 ms."""

_NO_BODY = {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}


class UnsolicitedData(Exception):
    """The connection received data before the call was sent."""


class ConnectionClosed(OSError):
    """The server closed the connection instead of replying."""


class IncompleteReply(OSError):
    """The connection broke off within the reply."""


class MalformedReply(Exception):
    """The reply is not HTTP, its head is endless, or it switches protocols."""


class ReplyTimeout(TimeoutError):
    """The server paused for `READ_TIMEOUT_S`."""


class Connection(asyncio.Protocol):
    """One connection. Once it has failed or received unsolicited data, it is closed."""

    __slots__ = (
        *("_active_s", "_body", "_headers", "_is_packed_error", "_is_paused", "_loop"),
        *("_max_bytes", "_on_lost", "_overhead", "_parser", "_status", "_timer", "_transport"),
        *("_until_close", "_waiter", "is_open"),
    )

    def __init__(
        self, loop: asyncio.AbstractEventLoop, on_lost: "Callable[[Connection], object]"
    ) -> None:
        """Call `on_lost` once the connection is lost or closed."""
        self.is_open = False
        """Whether a call may be sent, if none is under way."""
        self._loop = loop
        self._on_lost = on_lost
        self._parser = httptools.HttpResponseParser(self)
        # Some servers send control characters in headers, lines without a carriage return, or
        # spaces after the size of a chunk. No reply is passed on as HTTP, so that does no harm.
        self._parser.set_dangerous_leniencies(
            lenient_headers=True,
            lenient_optional_cr_before_lf=True,
            lenient_spaces_after_chunk_size=True,
        )
        self._waiter: asyncio.Future[tuple[int, dict[str, str], list[bytes]]] | None = None
        """The status, headers and pieces of the body of the reply; None unless one is awaited."""
        self._max_bytes = 0
        self._status = 0
        """The status of the reply, once its head is complete."""
        self._headers: dict[str, str] = {}
        self._body: BodyReader | None = None
        """The body of the reply, once its head is complete."""
        self._is_packed_error = False
        self._until_close = False
        """Whether the reply ends with the connection."""
        self._overhead = 0
        """The bytes received that hold nothing of the body."""
        self._active_s = 0.0
        """When the server last had the word, on the loop's clock."""
        self._timer: asyncio.TimerHandle | None = None
        self._is_paused = False
        """Whether the call waits for the server to read it."""

    async def exchange(self, head: bytes, body: bytes, *, max_bytes: int) -> HttpReply:
        """Send a call and return the reply, whose body may have `max_bytes`, decompressed.

        If this raises or is cancelled, the connection is closed.

        Raises:
            UnsolicitedData: Nothing was sent.
            ConnectionClosed: The server did not reply.
            IncompleteReply: The reply broke off.
            MalformedReply: The reply is not HTTP.
            ReplyTimeout: The reply paused too long.
            ProviderError: The body is too large, or encoded in an unknown way.
        """
        if not self.is_open:
            raise UnsolicitedData
        self._max_bytes, self._status, self._body, self._overhead = max_bytes, 0, None, 0
        waiter = self._waiter = self._loop.create_future()
        if len(body) <= JOINED_BYTES:
            self._transport.write(head + body)
        else:
            self._transport.writelines((head, body))
        self._active_s = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_at(self._active_s + READ_TIMEOUT_S, self._check_pause)
        try:
            status, headers, pieces = await waiter
        except BaseException:
            self._waiter = None
            self.abort()
            raise
        return HttpReply(status=status, headers=headers, body=await _join(pieces))

    def abort(self) -> None:
        """Close the connection at once."""
        self.is_open = False
        self._transport.abort()

    # What follows is called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note the connection."""
        self._transport = cast("asyncio.Transport", transport)
        self.is_open = True

    def connection_lost(self, exc: Exception | None) -> None:
        """End the call under way."""
        self.is_open = False
        self._on_lost(self)
        if self._timer is not None:
            self._timer.cancel()
        if self._waiter is None:
            return
        if self._until_close and self._body is not None and exc is None:
            self._complete()
        elif self._status or self._overhead:
            self._fail(IncompleteReply(str(exc or "the server closed the connection")))
        else:
            self._fail(ConnectionClosed(str(exc or "the server closed the connection")))

    def pause_writing(self) -> None:
        """Note that the server does not read as fast as the call is written."""
        self._is_paused = True

    def resume_writing(self) -> None:
        """Let the time limit start, because now the server has the word."""
        self._is_paused = False
        self._active_s = self._loop.time()

    def data_received(self, data: bytes) -> None:
        """Read a part of a reply."""
        if self._waiter is None:
            self.abort()
            return
        self._active_s = self._loop.time()
        self._overhead += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            # After a complete reply, only the connection is at fault.
            self._fail(MalformedReply(str(error)))
        if self._overhead > MAX_OVERHEAD_BYTES:
            self._fail(MalformedReply("an endless head"))

    def _check_pause(self) -> None:
        """End the call under way if the server has paused too long."""
        self._timer = None
        if self._waiter is None:
            return
        now_s = self._loop.time()
        due_s = (now_s if self._is_paused else self._active_s) + READ_TIMEOUT_S
        if due_s <= now_s:
            self._fail(ReplyTimeout(f"no data for {READ_TIMEOUT_S:g} s"))
        else:
            self._timer = self._loop.call_at(due_s, self._check_pause)

    # What follows is called by the parser.

    def on_message_begin(self) -> None:
        """Begin a reply or a hint; after the reply, nothing may come."""
        if self._waiter is None:
            self.abort()
        self._headers = {}

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header of the head. If it comes twice, the first counts."""
        if self._body is None:
            self._headers.setdefault(
                name.decode("latin-1").lower(), value.decode("utf-8", "surrogateescape")
            )

    def on_headers_complete(self) -> None:
        """Prepare for the body."""
        status, headers = self._parser.get_status_code(), self._headers
        if status == HTTPStatus.SWITCHING_PROTOCOLS:
            self._fail(MalformedReply("a switch of protocols"))
        if status < HTTPStatus.OK:
            return
        self._status = status
        self._until_close = status not in _NO_BODY and not (
            "content-length" in headers or "transfer-encoding" in headers
        )
        encoding = headers.get("content-encoding", "identity").lower()
        self._is_packed_error = is_packed_error(status, encoding)
        if self._is_packed_error:
            self._max_bytes = min(self._max_bytes, MAX_PACKED_ERROR_BYTES)
        try:
            self._body = BodyReader(encoding, max_bytes=self._max_bytes)
        except ProviderError as error:
            self._give_up_body(error)

    def on_body(self, piece: bytes) -> None:
        """Keep a piece of the body."""
        self._overhead -= len(piece)
        if self._body is None or self._waiter is None:
            return
        try:
            self._body.add(piece)
        except ProviderError as error:
            self._give_up_body(error)

    def on_message_complete(self) -> None:
        """End the call, unless this was a hint."""
        if self._body is None or self._waiter is None:
            return
        # A server that answers before it has read the call may take the rest for the next one.
        if not self._parser.should_keep_alive() or self._transport.get_write_buffer_size():
            self.is_open = False
        self._complete()

    def _complete(self) -> None:
        try:
            pieces = self._body.finish() if self._body is not None else []
        except ProviderError as error:
            self._give_up_body(error)
        else:
            self._reply(pieces)

    def _give_up_body(self, error: ProviderError) -> None:
        """End the call without the rest of a body that cannot be read."""
        if self._is_packed_error:
            self.is_open = False
            self._reply([])
        else:
            self._fail(error)

    def _reply(self, pieces: list[bytes]) -> None:
        # What comes after the reply must not change it.
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result((self._status, self._headers, pieces))

    def _fail(self, error: Exception) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_exception(error)
        self.abort()


async def _join(pieces: list[bytes]) -> bytes:
    if len(pieces) == 1:
        return pieces[0]
    if sum(map(len, pieces)) <= LARGE_BYTES:
        return b"".join(pieces)
    return await asyncio.to_thread(b"".join, pieces)  # which lets go of the interpreter's lock
