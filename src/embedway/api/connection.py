"""The client at the other end of one request: what it sends, how slowly, and whether it leaves.

And how slowly it takes its answer.
"""

import asyncio
from collections.abc import Mapping
from typing import cast

import msgspec

from embedway.api.admission import RequestSlot, displaced_error
from embedway.api.asgi import Headers, Receive, Send
from embedway.core.errors import BodyTooLarge, EmbedwayError, SlowRequest, UnsupportedEncoding
from embedway.wire import error as wire_error

DRAIN_S = 5.0
"""How long what is left of a refused body is read and dropped."""

PIECE_BYTES = 2**18
"""Of an answer, handed to the server at a time; a larger one waits for the client to take it."""

_JSON = (b"content-type", b"application/json")


Reply = tuple[int, bytes, Headers]
"""The status, the body and the headers of an answer."""


class BodyLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a request body may be."""

    max_bytes: int
    timeout_s: float


class ClientDisconnect(Exception):
    """There is nobody left to answer."""


class IncompleteBody(ClientDisconnect):
    """The body ended before it was complete: the client left, or framed it wrongly."""


class ClientConnection:
    """Reads one request's body and watches its connection."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._body_left = True

    async def read_body(
        self, headers: Mapping[bytes, bytes], limits: BodyLimits, ticket: RequestSlot
    ) -> bytes:
        """The whole body; its bytes are held on `ticket`.

        Raises:
            BodyTooLarge: Over the cap, as declared or as sent.
            UnsupportedEncoding: It has a Content-Encoding.
            SlowRequest: It was not complete in time.
            ServiceOverloaded: The bodies in flight have too many bytes together, or this one made
                room for another request.
            ClientDisconnect: The client closed the connection.
        """
        if headers.get(b"content-encoding", b"identity").lower() != b"identity":
            raise UnsupportedEncoding("The body has a Content-Encoding. Send it as plain JSON.")
        declared = headers.get(b"content-length", b"")
        if declared.isdigit() and int(declared) > limits.max_bytes:
            raise _too_large(limits)
        chunks: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(limits.timeout_s) as timeout:
                ticket.begin_body(timeout)
                try:
                    while self._body_left:
                        chunk = await self._chunk()
                        size += len(chunk)
                        if size > limits.max_bytes:
                            raise _too_large(limits)
                        ticket.hold(len(chunk))
                        chunks.append(chunk)
                finally:
                    ticket.end_body()
        except TimeoutError:
            if ticket.displaced:
                raise displaced_error() from None
            self._body_left = False  # it has had its time: nothing is left to wait for
            raise SlowRequest(
                f"The body was not complete after {limits.timeout_s:g} s. Send it faster, or send "
                "fewer items at a time."
            ) from None
        return b"".join(chunks)

    async def drain(self, limits: BodyLimits) -> None:
        """Reads and drops what is left of a refused body, a bounded while.

        A client that is still sending when its connection is closed sees a reset and never the
        answer. This lets it see the answer.
        """
        size = 0
        try:
            async with asyncio.timeout(min(DRAIN_S, limits.timeout_s)):
                while self._body_left and size <= 4 * limits.max_bytes:
                    size += len(await self._chunk())
        except (TimeoutError, IncompleteBody):
            return  # a body that is refused may as well be broken

    def cancel_on_disconnect(self) -> "_Watch":
        """A context that cancels what runs inside if the client leaves.

        Raises:
            ClientDisconnect: The client left.
        """
        return _Watch(self._receive)

    async def send_response(
        self, status: int, content: bytes, headers: Headers, limits: BodyLimits
    ) -> None:
        """Sends a complete JSON response, as fast as the client takes it.

        Raises:
            ClientDisconnect: It took nothing for as long as its body might have taken to arrive.
        """
        length = (b"content-length", b"%d" % len(content))
        sent = {
            "type": "http.response.start",
            "status": status,
            "headers": [_JSON, length, *headers],
        }
        await self._send(sent)
        for start in range(0, len(content), PIECE_BYTES):
            end = start + PIECE_BYTES
            piece = content[start:end]
            more = end < len(content)
            message = {"type": "http.response.body", "body": piece, "more_body": more}
            if not (start or more):  # the server takes one piece as it is
                await self._send(message)
                return
            try:
                async with asyncio.timeout(limits.timeout_s):
                    await self._send(message)
            except TimeoutError:
                raise ClientDisconnect from None

    async def _chunk(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise IncompleteBody
        self._body_left = message.get("more_body", False)
        return message.get("body", b"")


class _Watch:
    """Cancels the current task if the client leaves."""

    __slots__ = ("_has_left", "_receive", "_task", "_watcher")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._has_left = False

    def __enter__(self) -> None:
        self._task = cast("asyncio.Task[object]", asyncio.current_task())
        self._watcher = asyncio.ensure_future(self._cancel_when_left())

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._watcher.cancel()
        if self._has_left and kind is asyncio.CancelledError:
            self._task.uncancel()
            raise ClientDisconnect from None

    async def _cancel_when_left(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._has_left = True
        self._task.cancel()


def error_response(error: EmbedwayError) -> Reply:
    """Render an error as the answer to a request."""
    headers = [(name.encode(), value.encode()) for name, value in error.headers.items()]
    return error.status, wire_error.encode_error(error), headers


def _too_large(limits: BodyLimits) -> BodyTooLarge:
    return BodyTooLarge(
        f"The body is larger than {limits.max_bytes} bytes. Send fewer items at a time."
    )
