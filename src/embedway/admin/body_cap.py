"""Reads the bodies of requests to the control plane: small, plain, and in time, or refused.

Without it the web framework reads whatever is sent before it asks who sends it.
"""

import asyncio
from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from embedway.core.errors import BodyTooLarge, EmbedwayError, EncodedBody, SlowRequest
from embedway.wire import error as wire_error

MAX_BYTES = 2**20
TIMEOUT_S = 30.0


class BodyCap:
    """An ASGI application before another one."""

    def __init__(
        self, app: ASGIApp, *, max_bytes: int = MAX_BYTES, timeout_s: float = TIMEOUT_S
    ) -> None:
        """Args name what is before what, how large a body may be, and how long it may take."""
        self._app = app
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or another event of the server."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            first = await self._read(Headers(scope=scope), receive)
        except EmbedwayError as error:
            await _refuse(error, send)
            return
        left: list[Message] = [first]

        async def replay() -> Message:
            return left.pop() if left else await receive()

        await self._app(scope, replay, send)

    async def _read(self, headers: Mapping[str, str], receive: Receive) -> Message:
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise EncodedBody("The body has a Content-Encoding. Send it as plain JSON.")
        declared = headers.get("content-length", "")
        if declared.isdecimal() and len(declared) > len(str(self._max_bytes)):
            raise self._too_large()
        if declared.isdecimal() and int(declared) > self._max_bytes:
            raise self._too_large()
        pieces: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._timeout_s):
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        return message
                    pieces.append(message.get("body", b""))
                    size += len(pieces[-1])
                    if size > self._max_bytes:
                        raise self._too_large()
                    if not message.get("more_body", False):
                        break
        except TimeoutError:
            raise SlowRequest(
                f"The body was not complete after {self._timeout_s:g} s. Send it faster."
            ) from None
        return {"type": "http.request", "body": b"".join(pieces), "more_body": False}

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(f"The body is larger than {self._max_bytes} bytes. Send a smaller one.")


async def _refuse(error: EmbedwayError, send: Send) -> None:
    body = wire_error.body(error)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
