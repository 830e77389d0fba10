"""The only code that talks to upstreams: one pool of connections for each provider.

Owns how a call goes out and how much may come back: connections, time limits, the size of replies,
and which addresses may be called. Knows nothing of embeddings.
"""

import ssl
import sys
import zlib
from collections.abc import Mapping
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Protocol, cast

import aiohttp
import truststore
from aiohttp.connector import Connection
from yarl import URL

import embedway
from embedway.core.provider_error import Billable, FailureKind, ProviderError
from embedway.http.addresses import PrivateAddressError, public_socket
from embedway.http.call import HttpCall, HttpReply, join_url

CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 30.0
"""Between two bytes of a reply; the whole of it is bounded by the caller's deadline."""
KEEPALIVE_S = 30.0
DNS_CACHE_S = 60
MAX_PATHS = 256
"""Kept as parsed; some have the model in them, which a client may name as it likes."""

_HEADERS = {
    "Content-Type": "application/json",
    "Accept": "application/json",
    # Floats hardly shrink; what comes compressed all the same is decompressed under a cap.
    "Accept-Encoding": "identity",
    "User-Agent": f"embedway/{embedway.__version__}",
}

MAX_PACKED_ERROR_BYTES = 2**16
"""The most bytes of a compressed error that are read, decompressed."""
MAX_UNASKED = 3
"""The most connections that one call gives up because something came on them unasked."""


class UnsolicitedResponse(aiohttp.ClientError):
    """A connection holds an answer to something else: it came before the call was sent."""


# Every way a call can fail below HTTP: what it means, and whether the call may have been billed.
# The first that matches wins.
FAILURES: tuple[tuple[type[BaseException], FailureKind, Billable], ...] = (
    (PrivateAddressError, "unreachable", "not sent"),
    (UnsolicitedResponse, "unreachable", "not sent"),
    (aiohttp.ConnectionTimeoutError, "unreachable", "no"),
    (aiohttp.ClientConnectorError, "unreachable", "no"),  # DNS, refused, TLS
    (aiohttp.InvalidURL, "unreachable", "not sent"),
    (TimeoutError, "timeout", "maybe"),
    (aiohttp.ServerDisconnectedError, "unreachable", "maybe"),
    (aiohttp.ClientPayloadError, "failed", "maybe"),  # it broke off
    (aiohttp.ClientResponseError, "malformed", "maybe"),  # no HTTP, or heads without end
    (aiohttp.ClientError, "unreachable", "maybe"),
    (OSError, "unreachable", "maybe"),
    (ValueError, "unreachable", "not sent"),  # an address or a header that cannot be sent
    (Exception, "malformed", "maybe"),  # whatever else a reply makes of the code that reads it
)


class Transport(Protocol):
    """Sends calls to one provider."""

    async def send(
        self, call: HttpCall, *, headers: Mapping[str, str], max_bytes: int
    ) -> HttpReply:
        """The reply to `call`, whatever its status.

        Args:
            call: What to send.
            headers: The credentials.
            max_bytes: Of the reply's body, decompressed.

        Raises:
            ProviderError: There is no reply, it is too large, or it is not HTTP.
        """
        ...

    async def aclose(self) -> None:
        """Closes all connections."""
        ...


class HttpClient:
    """Calls one base URL."""

    def __init__(self, base_url: str, *, allow_private: bool, max_in_flight: int) -> None:
        """Opens nothing yet.

        Args:
            base_url: Of the provider; paths of calls are put at the end of its own path, before
                its query.
            allow_private: Whether it may be at a private, link-local or loopback address: only if
                the administrator declared it.
            max_in_flight: Calls at a time; more wait for one to end.
        """
        self.base_url = base_url
        self._allow_private = allow_private
        self._max_in_flight = max_in_flight
        self._session: aiohttp.ClientSession | None = None
        self._urls: dict[str, URL] = {}

    async def send(
        self, call: HttpCall, *, headers: Mapping[str, str], max_bytes: int
    ) -> HttpReply:
        """See `Transport.send`."""
        session = self._session or self._open()
        given_up = 0
        while True:
            try:
                async with session.request(
                    call.method,
                    self._url(call.path),
                    data=call.body or None,
                    headers={**call.headers, **headers},
                    allow_redirects=False,
                ) as response:
                    body = await _body(response, max_bytes)
                    return HttpReply(status=response.status, headers=response.headers, body=body)
            except ProviderError:
                raise
            except Exception as error:
                given_up += isinstance(error, UnsolicitedResponse)
                if not isinstance(error, UnsolicitedResponse) or given_up == MAX_UNASKED:
                    raise _failure(error) from error

    async def aclose(self) -> None:
        """See `Transport.aclose`."""
        if self._session:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            limit=self._max_in_flight,
            ttl_dns_cache=DNS_CACHE_S,
            keepalive_timeout=KEEPALIVE_S,
            ssl=_tls() if self.base_url.startswith("https:") else True,
            # Called with every address, also where the URL holds it literally.
            socket_factory=cast("Any", None if self._allow_private else public_socket),
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=READ_TIMEOUT_S
            ),
            headers=_HEADERS,
            cookie_jar=aiohttp.DummyCookieJar(),
            request_class=_Request,
            auto_decompress=False,
        )
        return self._session

    def _url(self, path: str) -> URL:
        url = self._urls.get(path)
        if url is None:
            url = URL(join_url(self.base_url, path), encoded=True)
            if len(self._urls) < MAX_PATHS:
                self._urls[path] = url
        return url


class _Request(aiohttp.ClientRequest):
    """A request that goes out on a silent connection only.

    What a server sends unasked on a kept connection would be read as the answer to the next call.
    """

    async def send(self, conn: Connection) -> aiohttp.ClientResponse:
        """Sends it.

        Raises:
            UnsolicitedResponse: Something came already. The session closes the connection.
        """
        if conn.protocol is None or conn.protocol.should_close:
            raise UnsolicitedResponse
        return await super().send(conn)


def _failure(error: Exception) -> ProviderError:
    refused = isinstance(error, aiohttp.ClientConnectorError) and error.os_error
    cause = refused if isinstance(refused, PrivateAddressError) else error
    kind, billed = next(each[1:] for each in FAILURES if isinstance(cause, each[0]))
    return ProviderError(kind, billed=billed)


async def _body(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    encoding = response.headers.get("Content-Encoding", "identity").lower()
    if response.status >= HTTPStatus.BAD_REQUEST and encoding != "identity":
        try:
            return await _unpacked(response, encoding, min(max_bytes, MAX_PACKED_ERROR_BYTES))
        except ProviderError:
            return b""  # the status says enough
    return await _unpacked(response, encoding, max_bytes)


async def _unpacked(response: aiohttp.ClientResponse, encoding: str, max_bytes: int) -> bytes:
    chunks: list[bytes] = []
    left = max_bytes
    unpack = None
    if encoding in {"gzip", "x-gzip", "deflate"}:
        unpack = zlib.decompressobj(zlib.MAX_WBITS | 32)
    elif encoding != "identity":
        raise ProviderError("malformed", "an encoding it was not asked for", billed="yes")
    async for chunk in response.content.iter_any():
        try:
            piece = unpack.decompress(chunk, left + 1) if unpack else chunk
        except zlib.error:
            raise ProviderError("malformed", "broken compression", billed="yes") from None
        left -= len(piece)
        if left < 0:
            raise ProviderError("malformed", f"more than {max_bytes} bytes", billed="yes")
        chunks.append(piece)
    if unpack and not unpack.eof:
        raise ProviderError("malformed", "broken compression", billed="yes")
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


@lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    # The system's certificates, also where a company has put its own there. On Linux OpenSSL reads
    # them by itself, once; truststore would again for each connection, 18 ms on the event loop.
    if sys.platform == "linux":
        return ssl.create_default_context()
    return truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
