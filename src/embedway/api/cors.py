"""Lets web pages of listed origins call the gateway (CORS).

It stands in front of both planes, so that errors get the headers too. It allows no cookies: a page
sends its token as Authorization, like any other client.
"""

from collections.abc import Iterable

from embedway.api.asgi import Application, Headers, Message, Receive, Scope, Send
from embedway.ratelimits.headers import KINDS

EXPOSED = (
    *("x-request-id", "openai-processing-ms", "www-authenticate"),
    *("retry-after", "retry-after-ms", "x-should-retry"),
    *(f"x-ratelimit-{what}-{of}" for of in KINDS for what in ("limit", "remaining", "reset")),
    *("x-embedway-model", "x-embedway-provider", "x-embedway-space"),
    *("x-embedway-cost-usd", "x-embedway-overhead-ms"),
)
"""The response headers that a page may read."""
MAX_AGE_S = 600
"""How long a browser may cache the answer to a preflight."""

_ALLOW_ORIGIN = b"access-control-allow-origin"
_EXPOSE = (b"access-control-expose-headers", ", ".join(EXPOSED).encode())
_VARY = (b"vary", b"origin")
_PREFLIGHT: Headers = [
    (b"access-control-allow-methods", b"GET, POST, DELETE"),
    (b"access-control-max-age", b"%d" % MAX_AGE_S),
    (b"vary", b"origin, access-control-request-headers"),
]


class Cors:
    """ASGI middleware that answers preflights and adds CORS headers to responses."""

    def __init__(self, app: Application, *, origins: Iterable[str]) -> None:
        self._app = app
        self._origins = frozenset(each.encode() for each in origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a preflight, or pass a request on and add headers to its response."""
        headers = dict(scope["headers"])
        origin = headers.get(b"origin", b"")
        is_allowed = origin in self._origins
        is_preflight = scope["method"] == "OPTIONS" and b"access-control-request-method" in headers
        if is_allowed and is_preflight:
            # Any header is allowed, because SDKs add many of their own.
            requested = headers.get(b"access-control-request-headers", b"")
            allow = [(_ALLOW_ORIGIN, origin), (b"access-control-allow-headers", requested)]
            await send(
                {"type": "http.response.start", "status": 204, "headers": [*allow, *_PREFLIGHT]}
            )
            await send({"type": "http.response.body"})
            return
        added = [(_ALLOW_ORIGIN, origin), _EXPOSE, _VARY] if is_allowed else [_VARY]

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *added]}
            await send(message)

        await self._app(scope, receive, send_with_headers)
