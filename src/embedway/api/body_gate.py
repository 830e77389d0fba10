"""Reads control-plane request bodies, and only from callers with a valid credential.

The web framework would read a body before checking who sends it. This middleware reads it first,
within the limits of `embedway.api.admission`. Without a valid credential it reads nothing and lets
the application refuse the request. The bodies of uploads are passed on as they arrive.
"""

from collections.abc import Collection, Mapping
from types import MappingProxyType

from embedway.api.admission import Admission, RequestSlot
from embedway.api.asgi import Application, Message, Receive, Scope, Send
from embedway.api.connection import (
    BodyLimits,
    ClientConnection,
    ClientDisconnect,
    IncompleteBody,
    error_response,
)
from embedway.auth.authenticator import Authenticator
from embedway.core.errors import EmbedwayError, InvalidRequest

MAX_BYTES = 2**20
MAX_ANONYMOUS_BYTES = 2**14
"""The largest body to read when only the body says who sent it."""

_BROKEN = InvalidRequest("The body cannot be read as JSON. Correct it.")


class BodyGate:
    """ASGI middleware that reads request bodies."""

    def __init__(
        self,
        app: Application,
        *,
        authenticator: Authenticator,
        admission: Admission,
        timeout_s: float,
        open_paths: Collection[str] = (),
        uploads: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        """Wrap an application.

        Args:
            app: The application.
            authenticator: Decides whose body is read.
            admission: Limits the requests and bytes in flight.
            timeout_s: How long a body may take to arrive.
            open_paths: The paths on which the credential is in the body.
            uploads: The paths whose bodies are passed on piece by piece, each with the most bytes.
        """
        self._app = app
        self._authenticator = authenticator
        self._admission = admission
        self._limits = BodyLimits(max_bytes=MAX_BYTES, timeout_s=timeout_s)
        self._anonymous_limits = BodyLimits(max_bytes=MAX_ANONYMOUS_BYTES, timeout_s=timeout_s)
        self._open_paths = frozenset(open_paths)
        self._uploads = {
            path: BodyLimits(max_bytes=most, timeout_s=timeout_s) for path, most in uploads.items()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the body of a request and pass it on."""
        headers = dict(scope.get("headers", ()))
        if headers.get(b"content-length", b"0") == b"0" and b"transfer-encoding" not in headers:
            await self._app(scope, receive, send)
            return
        client, slot = ClientConnection(receive, send), RequestSlot(self._admission)
        try:
            try:
                if scope["path"] in self._uploads:
                    await self._pass_on(scope, headers, client, slot, receive, send)
                    return
                body = await self._read_body(scope, headers, client, slot)
            except EmbedwayError as error:
                slot.release()
                await client.drain(self._limits)
                await self._refuse(error, client)
                return
            messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

            async def replay() -> Message:
                return messages.pop() if messages else await receive()

            await self._app(scope, replay, send)
        except IncompleteBody:
            await self._refuse(_BROKEN, client)
        except ClientDisconnect:
            pass
        finally:
            slot.release()

    async def _read_body(
        self,
        scope: Scope,
        headers: Mapping[bytes, bytes],
        client: ClientConnection,
        slot: RequestSlot,
    ) -> bytes:
        """Read the body; return nothing if the caller is not known.

        Raises:
            EmbedwayError: The body is refused, or there is no room for it.
            ClientDisconnect: The client closed the connection.
        """
        if scope["path"] in self._open_paths:
            self._admission.admit_anonymous(slot)
            return await client.read_body(headers, self._anonymous_limits, slot)
        try:
            caller = await self._authenticator.authenticate(headers.get(b"authorization"), None)
        except EmbedwayError:
            await client.drain(self._limits)
            return b""
        self._admission.admit(slot, caller)
        return await client.read_body(headers, self._limits, slot)

    async def _pass_on(
        self,
        scope: Scope,
        headers: Mapping[bytes, bytes],
        client: ClientConnection,
        slot: RequestSlot,
        receive: Receive,
        send: Send,
    ) -> None:
        """Let the application read a body as it arrives, and read the rest of one it refuses.

        Raises:
            EmbedwayError: There is no room for another request.
            ClientDisconnect: The client closed the connection.
        """
        limits = self._uploads[scope["path"]]
        caller = await self._authenticator.authenticate(headers.get(b"authorization"), None)
        self._admission.admit(slot, caller)
        pieces = client.read_pieces(headers, limits, slot)

        async def next_piece() -> Message:
            if not client.is_body_left:
                return await receive()
            try:
                piece = await anext(pieces)
            except IncompleteBody:
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": piece, "more_body": client.is_body_left}

        async def send_after_body(message: Message) -> None:
            if client.is_body_left:
                await client.drain(limits)
            await send(message)

        await self._app(scope, next_piece, send_after_body)

    async def _refuse(self, error: EmbedwayError, client: ClientConnection) -> None:
        status, pieces, headers = error_response(error)
        headers.append((b"connection", b"close"))
        await client.send_response(status, pieces, headers, self._limits)
