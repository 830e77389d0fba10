"""Reads a request from its client, sends the answer, and notices when the client leaves."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import cast

import msgspec

from embedway.api.admission import RequestSlot, displaced_error
from embedway.api.asgi import Headers, Message, Receive, Send
from embedway.core.errors import BodyTooLarge, EmbedwayError, SlowRequest, UnsupportedEncoding
from embedway.wire import error as wire_error

DRAIN_S = 5.0
"""Read and drop the rest of a refused body for this long at most."""

_JSON = (b"content-type", b"application/json")


Reply = tuple[int, list[bytes], Headers]
"""The status, the pieces of the body and the headers of an answer."""


class BodyLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How large a request body may be, and how long it may take to arrive."""

    max_bytes: int
    timeout_s: float


class ClientDisconnect(Exception):
    """The client closed the connection or stopped reading."""


class IncompleteBody(ClientDisconnect):
    """The body ended before it was complete: the client left or framed it wrongly."""


class ClientConnection:
    """The connection of one request: reads its body, watches for a disconnect, sends the answer."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self.is_body_left = True
        """Whether some of the body has not been read."""

    async def read_body(
        self, headers: Mapping[bytes, bytes], limits: BodyLimits, ticket: RequestSlot
    ) -> bytes:
        """Read the whole body and count its bytes on `ticket`.

        Raises:
            BodyTooLarge: The body is larger than allowed, as declared or as sent.
            UnsupportedEncoding: The request has a Content-Encoding.
            SlowRequest: The body was not complete in time.
            ServiceOverloaded: The bodies in flight are too large together, or this request was
                dropped for another one.
            ClientDisconnect: The client closed the connection.
        """
        _check_headers(headers, limits)
        chunks: list[bytes] = []
        size = 0

        def keep(message: Message) -> None:
            nonlocal size
            chunk = self._chunk(message)
            size += len(chunk)
            if size > limits.max_bytes:
                raise _too_large(limits)
            ticket.hold(len(chunk))
            chunks.append(chunk)

        received = self._receive()
        if isinstance(received, asyncio.Future) and received.done():
            keep(received.result())
            if not self.is_body_left:
                return chunks[0]  # what is here already needs no time limit
            received = self._receive()
        async with self._in_time(limits, ticket):
            keep(await received)
            while self.is_body_left:
                keep(await self._receive())
        return b"".join(chunks)

    async def read_pieces(
        self, headers: Mapping[bytes, bytes], limits: BodyLimits, ticket: RequestSlot
    ) -> AsyncGenerator[bytes]:
        """Yield a body as it arrives, each piece within the time limit. It keeps none of it.

        Raises what `read_body` does.
        """
        _check_headers(headers, limits)
        size = 0
        while self.is_body_left:
            async with self._in_time(limits, ticket):
                piece = self._chunk(await self._receive())
            size += len(piece)
            if size > limits.max_bytes:
                raise _too_large(limits)
            yield piece

    async def drain(self, limits: BodyLimits) -> None:
        """Read and drop the rest of a refused body, for a limited time.

        A client that is still sending when the connection closes would see a reset instead of the
        answer.
        """
        size = 0
        try:
            async with asyncio.timeout(min(DRAIN_S, limits.timeout_s)):
                while self.is_body_left and size <= 4 * limits.max_bytes:
                    size += len(self._chunk(await self._receive()))
        except (TimeoutError, IncompleteBody):
            return  # the body is refused anyway

    def cancel_on_disconnect(self) -> "_Watch":
        """Return a context that cancels the work inside it when the client disconnects.

        The context then raises `ClientDisconnect`.
        """
        return _Watch(self._receive)

    async def send_response(
        self, status: int, pieces: list[bytes], headers: Headers, limits: BodyLimits
    ) -> None:
        """Send a complete JSON response, as fast as the client takes it.

        Empties `pieces`. Each one waits until the client has taken those before it.

        Raises:
            ClientDisconnect: The client took nothing for `limits.timeout_s`.
        """
        length = (b"content-length", b"%d" % sum(map(len, pieces)))
        sent = {
            "type": "http.response.start",
            "status": status,
            "headers": [_JSON, length, *headers],
        }
        await self._send(sent)
        if len(pieces) == 1:  # it needs no waiting
            message = {"type": "http.response.body", "body": pieces.pop(), "more_body": False}
            await self._send(message)
            return
        pieces.reverse()
        while pieces:
            piece = pieces.pop()
            message = {"type": "http.response.body", "body": piece, "more_body": bool(pieces)}
            try:
                async with asyncio.timeout(limits.timeout_s):
                    await self._send(message)
            except (TimeoutError, ConnectionResetError):
                raise ClientDisconnect from None

    @asynccontextmanager
    async def _in_time(self, limits: BodyLimits, ticket: RequestSlot) -> AsyncGenerator[None]:
        """Limit the time to read from the client, who may lose its place to another one."""
        try:
            async with asyncio.timeout(limits.timeout_s) as timeout:
                ticket.begin_body(timeout)
                try:
                    yield
                finally:
                    ticket.end_body()
        except TimeoutError:
            if ticket.is_displaced:
                raise displaced_error() from None
            self.is_body_left = False  # do not wait for the rest either
            raise SlowRequest(
                f"The body was not complete after {limits.timeout_s:g} s. Send it faster, or send "
                "fewer items at a time."
            ) from None

    def _chunk(self, message: Message) -> bytes:
        if message["type"] == "http.disconnect":
            raise IncompleteBody
        self.is_body_left = message.get("more_body", False)
        return message.get("body", b"")


class _Watch:
    """Cancels the current task when the client disconnects."""

    __slots__ = ("_has_left", "_message", "_receive", "_task")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._has_left = False

    def __enter__(self) -> None:
        self._task = cast("asyncio.Task[object]", asyncio.current_task())
        self._wait()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._message.remove_done_callback(self._read)
        self._message.cancel()
        if self._has_left and kind is asyncio.CancelledError:
            self._task.uncancel()
            raise ClientDisconnect from None

    def _wait(self) -> None:
        # Our server returns a future here. A task that awaited it would take a twentieth of the CPU
        # time of a small request.
        received = self._receive()
        is_future = isinstance(received, asyncio.Future)
        self._message = received if is_future else asyncio.ensure_future(received)
        self._message.add_done_callback(self._read)

    def _read(self, message: "asyncio.Future[Message]") -> None:
        if message.cancelled():
            return
        if message.result()["type"] == "http.disconnect":
            self._has_left = True
            self._task.cancel()
        else:
            self._wait()


def error_response(error: EmbedwayError) -> Reply:
    """Encode an error as the answer to a request."""
    headers = [(name.encode(), value.encode()) for name, value in error.headers.items()]
    return error.status, [wire_error.encode_error(error)], headers


def _check_headers(headers: Mapping[bytes, bytes], limits: BodyLimits) -> None:
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise UnsupportedEncoding("The body has a Content-Encoding. Send it as plain JSON.")
    declared = headers.get(b"content-length", b"")
    if declared.isdigit() and int(declared) > limits.max_bytes:
        raise _too_large(limits)


def _too_large(limits: BodyLimits) -> BodyTooLarge:
    return BodyTooLarge(
        f"The body is larger than {limits.max_bytes} bytes. Send fewer items at a time."
    )
