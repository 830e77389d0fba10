"""Sends HTTP calls, with one pool of connections per provider.

Owns connections, time limits, the size of replies, and which addresses may be called. Knows nothing
about embeddings.
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
"""The longest pause within a reply. The caller's deadline bounds the reply as a whole."""
KEEPALIVE_S = 30.0
DNS_CACHE_S = 60
MAX_PATHS = 256
"""The most parsed URLs to keep. Bounded because clients choose the model in some paths."""

_HEADERS = {
    "Content-Type": "application/json",
    "Accept": "application/json",
    # Compression hardly shrinks floats. Replies that are compressed anyway are read up to a limit.
    "Accept-Encoding": "identity",
    "User-Agent": f"embedway/{embedway.__version__}",
}

MAX_PACKED_ERROR_BYTES = 2**16
"""The most decompressed bytes to read of a compressed error reply."""
MAX_UNSOLICITED = 3
"""The most connections that one call may drop because of unsolicited data."""


class UnsolicitedResponse(aiohttp.ClientError):
    """A pooled connection received data before the call was sent."""


# What each exception below HTTP means, and whether the call may be billed. The first match wins.
FAILURES: tuple[tuple[type[BaseException], FailureKind, Billable], ...] = (
    (PrivateAddressError, "unreachable", "not sent"),
    (UnsolicitedResponse, "unreachable", "not sent"),
    (aiohttp.ConnectionTimeoutError, "unreachable", "no"),
    (aiohttp.ClientConnectorError, "unreachable", "no"),  # DNS, refused, TLS
    (aiohttp.InvalidURL, "unreachable", "not sent"),
    (TimeoutError, "timeout", "maybe"),
    (aiohttp.ServerDisconnectedError, "unreachable", "maybe"),
    (aiohttp.ClientPayloadError, "failed", "maybe"),  # the reply broke off
    (aiohttp.ClientResponseError, "malformed", "maybe"),  # not HTTP, or an endless head
    (aiohttp.ClientError, "unreachable", "maybe"),
    (OSError, "unreachable", "maybe"),
    (ValueError, "unreachable", "not sent"),  # an address or a header that cannot be sent
    (Exception, "malformed", "maybe"),  # a reply that breaks the code that reads it
)


class Transport(Protocol):
    """Sends calls to one provider."""

    async def send(
        self, call: HttpCall, *, headers: Mapping[str, str], max_bytes: int
    ) -> HttpReply:
        """Send `call` and return the reply, whatever its status.

        `headers` are added to the call's. The body may have `max_bytes`, decompressed.

        Raises:
            ProviderError: No reply arrived, or it is too large or not HTTP.
        """
        ...

    async def aclose(self) -> None:
        """Close all connections."""
        ...


class HttpClient:
    """Calls one base URL. Opens no connection until it is used."""

    def __init__(self, base_url: str, *, allow_private: bool, max_in_flight: int) -> None:
        """Call `base_url`, with up to `max_in_flight` calls at a time. Further calls wait.

        With `allow_private`, the host may have a private, link-local or loopback address. Allow
        this only for addresses that the administrator declared.
        """
        self.base_url = base_url
        self._allow_private = allow_private
        self._max_in_flight = max_in_flight
        self._session: aiohttp.ClientSession | None = None
        self._urls: dict[str, URL] = {}

    async def send(
        self, call: HttpCall, *, headers: Mapping[str, str], max_bytes: int
    ) -> HttpReply:
        """Send `call` and return the reply, as `Transport.send` describes."""
        session = self._session or self._open()
        dropped = 0
        while True:
            try:
                async with session.request(
                    call.method,
                    self._url(call.path),
                    data=call.body or None,
                    headers={**call.headers, **headers},
                    allow_redirects=False,
                ) as response:
                    body = await _read_body(response, max_bytes)
                    return HttpReply(status=response.status, headers=response.headers, body=body)
            except ProviderError:
                raise
            except Exception as error:
                dropped += isinstance(error, UnsolicitedResponse)
                if not isinstance(error, UnsolicitedResponse) or dropped == MAX_UNSOLICITED:
                    raise _failure(error) from error

    async def aclose(self) -> None:
        """Close all connections."""
        if self._session:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            limit=self._max_in_flight,
            ttl_dns_cache=DNS_CACHE_S,
            keepalive_timeout=KEEPALIVE_S,
            ssl=_tls() if self.base_url.startswith("https:") else True,
            # Called for every address, including one written in the URL.
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
    """A request that is sent only on a connection without unread data.

    Otherwise unsolicited data on a pooled connection would be taken for the reply to the next call.
    """

    async def send(self, conn: Connection) -> aiohttp.ClientResponse:
        """Send the request.

        Raises:
            UnsolicitedResponse: The connection has unread data. The session closes it.
        """
        if conn.protocol is None or conn.protocol.should_close:
            raise UnsolicitedResponse
        return await super().send(conn)


def _failure(error: Exception) -> ProviderError:
    os_error = isinstance(error, aiohttp.ClientConnectorError) and error.os_error
    cause = os_error if isinstance(os_error, PrivateAddressError) else error
    kind, billed = next(each[1:] for each in FAILURES if isinstance(cause, each[0]))
    return ProviderError(kind, billed=billed)


async def _read_body(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    encoding = response.headers.get("Content-Encoding", "identity").lower()
    if response.status >= HTTPStatus.BAD_REQUEST and encoding != "identity":
        try:
            return await _decompress(response, encoding, min(max_bytes, MAX_PACKED_ERROR_BYTES))
        except ProviderError:
            return b""  # the status says enough
    return await _decompress(response, encoding, max_bytes)


async def _decompress(response: aiohttp.ClientResponse, encoding: str, max_bytes: int) -> bytes:
    chunks: list[bytes] = []
    left = max_bytes
    decompressor = None
    if encoding in {"gzip", "x-gzip", "deflate"}:
        decompressor = zlib.decompressobj(zlib.MAX_WBITS | 32)
    elif encoding != "identity":
        raise ProviderError("malformed", "a content encoding that was not requested", billed="yes")
    async for chunk in response.content.iter_any():
        try:
            piece = decompressor.decompress(chunk, left + 1) if decompressor else chunk
        except zlib.error:
            raise ProviderError("malformed", "broken compression", billed="yes") from None
        left -= len(piece)
        if left < 0:
            raise ProviderError("malformed", f"more than {max_bytes} bytes", billed="yes")
        chunks.append(piece)
    if decompressor and not decompressor.eof:
        raise ProviderError("malformed", "broken compression", billed="yes")
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


@lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    # Use the system's certificates, which may include a company's own. On Linux OpenSSL reads them
    # once by itself; truststore would read them for each connection, 18 ms on the event loop.
    if sys.platform == "linux":
        return ssl.create_default_context()
    return truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
