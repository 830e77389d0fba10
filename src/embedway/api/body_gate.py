"""Reads the bodies of requests to the control plane, and only from callers that it knows.

The web framework reads a body before it asks who sends it. This reads it first, within what
`embedway.api.admission` has room for; of a caller without a valid credential it reads nothing, and
leaves it to the application to refuse the request.
"""

from collections.abc import Collection, Mapping

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
"""The largest body that is read to learn who sent it."""

_BROKEN = InvalidRequest("The body cannot be read as JSON. Correct it.")


class BodyGate:
    """An ASGI application before another one."""

    def __init__(
        self,
        app: Application,
        *,
        authenticator: Authenticator,
        admission: Admission,
        timeout_s: float,
        open_paths: Collection[str] = (),
    ) -> None:
        """Take the application, and what decides whose body is read.

        Args:
            app: The application.
            authenticator: Knows the callers.
            admission: Has room for bodies, or not.
            timeout_s: How long a body may take to arrive.
            open_paths: Where the credentials are in the body.
        """
        self._app = app
        self._authenticator = authenticator
        self._admission = admission
        self._limits = BodyLimits(max_bytes=MAX_BYTES, timeout_s=timeout_s)
        self._anonymous_limits = BodyLimits(max_bytes=MAX_ANONYMOUS_BYTES, timeout_s=timeout_s)
        self._open_paths = frozenset(open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or pass on another event of the server."""
        headers = dict(scope.get("headers", ()))
        if headers.get(b"content-length", b"0") == b"0" and b"transfer-encoding" not in headers:
            await self._app(scope, receive, send)
            return
        client, ticket = ClientConnection(receive, send), RequestSlot(self._admission)
        try:
            try:
                body = await self._body(scope, headers, client, ticket)
            except EmbedwayError as error:
                ticket.release()
                await client.drain(self._limits)
                await self._refuse(error, client)
                return
            left: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

            async def replay() -> Message:
                return left.pop() if left else await receive()

            await self._app(scope, replay, send)
        except IncompleteBody:
            await self._refuse(_BROKEN, client)
        except ClientDisconnect:
            pass
        finally:
            ticket.release()

    async def _body(
        self,
        scope: Scope,
        headers: Mapping[bytes, bytes],
        client: ClientConnection,
        ticket: RequestSlot,
    ) -> bytes:
        """The body; empty if the caller is not known.

        Raises:
            EmbedwayError: It cannot be read, or there is no room for it.
            ClientDisconnect: The client closed the connection.
        """
        if scope["path"] in self._open_paths:
            ticket.admit_anonymous()
            return await client.read_body(headers, self._anonymous_limits, ticket)
        try:
            caller = await self._authenticator.authenticate(headers.get(b"authorization"), None)
        except EmbedwayError:
            await client.drain(self._limits)
            return b""
        ticket.admit(caller)
        return await client.read_body(headers, self._limits, ticket)

    async def _refuse(self, error: EmbedwayError, client: ClientConnection) -> None:
        status, content, headers = error_response(error)
        headers.append((b"connection", b"close"))
        await client.send_response(status, content, headers, self._limits)
