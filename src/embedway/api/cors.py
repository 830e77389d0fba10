"""Lets web pages of listed origins call the gateway: answers preflights and marks every answer.

Browsers call this CORS. It is in front of both planes, so errors are marked as well. It allows no
cookies: a page sends its token as Authorization, as any other client does.
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
"""Headers of answers that a page may read."""
MAX_AGE_S = 600
"""How long a browser may remember a preflight's answer."""

_ALLOW_ORIGIN = b"access-control-allow-origin"
_EXPOSE = (b"access-control-expose-headers", ", ".join(EXPOSED).encode())
_VARY = (b"vary", b"origin")
_PREFLIGHT: Headers = [
    (b"access-control-allow-methods", b"GET, POST, DELETE"),
    (b"access-control-max-age", b"%d" % MAX_AGE_S),
    (b"vary", b"origin, access-control-request-headers"),
]


class Cors:
    """An ASGI application in front of another one."""

    def __init__(self, app: Application, *, origins: Iterable[str]) -> None:
        self._app = app
        self._origins = frozenset(each.encode() for each in origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        headers = dict(scope["headers"])
        origin = headers.get(b"origin", b"")
        allowed = origin in self._origins
        asked = b"access-control-request-method" in headers
        if allowed and asked and scope["method"] == "OPTIONS":
            # Which headers a client sends is its own business: SDKs add many.
            wanted = headers.get(b"access-control-request-headers", b"")
            allow = [(_ALLOW_ORIGIN, origin), (b"access-control-allow-headers", wanted)]
            await send(
                {"type": "http.response.start", "status": 204, "headers": [*allow, *_PREFLIGHT]}
            )
            await send({"type": "http.response.body"})
            return
        marks = [(_ALLOW_ORIGIN, origin), _EXPOSE, _VARY] if allowed else [_VARY]

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *marks]}
            await send(message)

        await self._app(scope, receive, marked)
