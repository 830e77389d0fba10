"""Sends HTTP calls, with one pool of connections per provider.

Owns connections, time limits, the size of replies, and which addresses may be called. Knows nothing
about embeddings.
"""

import asyncio
import ssl
import sys
import zlib
from collections.abc import Mapping
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Protocol, cast

import aiohttp
import truststore
from aiohttp.http import RawResponseMessage, StreamWriter
from yarl import URL

import embedway
from embedway.core.provider_error import Billable, FailureKind, ProviderError
from embedway.http.addresses import PrivateAddressError, public_socket
from embedway.http.call import HttpCall, HttpReply, join_url, trace_headers

CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 30.0
"""The longest pause within a reply. The caller's deadline bounds the reply as a whole."""
KEEPALIVE_S = 30.0
DNS_CACHE_S = 60
MAX_PATHS = 256
"""The most targets to keep. Bounded because clients choose the model in some paths."""

_HEADERS = {
    "Content-Type": "application/json",
    "Accept": "application/json",
    # Compression hardly shrinks floats. Replies that are compressed anyway are read up to a limit.
    "Accept-Encoding": "identity",
    "User-Agent": f"embedway/{embedway.__version__}",
}

_TIMEOUT = aiohttp.ClientTimeout(sock_connect=CONNECT_TIMEOUT_S)

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
        self._connector: aiohttp.TCPConnector | None = None
        self._targets: dict[str, aiohttp.ClientRequest] = {}

    async def send(
        self, call: HttpCall, *, headers: Mapping[str, str], max_bytes: int
    ) -> HttpReply:
        """Send `call` and return the reply, as `Transport.send` describes."""
        tries = 0
        while True:
            tries += 1
            try:
                return await self._exchange(call, headers, max_bytes)
            except ProviderError:
                raise
            except Exception as error:
                unsolicited = isinstance(error, UnsolicitedResponse) and tries < MAX_UNSOLICITED
                if not unsolicited and (tries > 1 or call.method != "GET" or not _is_stale(error)):
                    raise _failure(error) from error

    async def aclose(self) -> None:
        """Close all connections."""
        if self._connector:
            await self._connector.close()

    async def _exchange(
        self, call: HttpCall, headers: Mapping[str, str], max_bytes: int
    ) -> HttpReply:
        """Send one call on one connection, and read the reply.

        A `ClientSession` does the same, with cookies, redirects and proxies. None of them is wanted
        here, and they took a tenth of the CPU time of a small request.
        """
        connector = self._connector or self._open()
        target = self._target(call.path)
        try:
            connection = await connector.connect(target, traces=[], timeout=_TIMEOUT)
        except TimeoutError as error:
            raise aiohttp.ConnectionTimeoutError from error
        sent = None
        try:
            protocol = connection.protocol
            if protocol is None:
                raise UnsolicitedResponse
            protocol.set_response_params(
                read_until_eof=True, auto_decompress=False, read_timeout=READ_TIMEOUT_S
            )
            # Unsolicited data on a pooled connection would be taken for the reply.
            if protocol.should_close:
                raise UnsolicitedResponse
            head = target.headers.copy()
            head.update(call.headers)
            head.update(self._with_trace(headers))
            if call.body or call.method != "GET":
                head["Content-Length"] = str(len(call.body))
            writer = StreamWriter(protocol, target.loop)
            line = f"{call.method} {target.url.raw_path_qs} HTTP/1.1"
            await writer.write_headers(line, head)
            await writer.write(call.body, drain=False)
            if protocol.writing_paused:
                # The time limit starts when a large body is sent. The reply may come before that.
                sent = asyncio.ensure_future(writer.drain())
                sent.add_done_callback(lambda sent: _is_done(sent) and protocol.start_timeout())
            else:
                protocol.start_timeout()
            message, content = await protocol.read()
            while message.code < HTTPStatus.OK:
                message, content = await protocol.read()
            body = await _read_body(message, content, max_bytes)
            if protocol.writing_paused:
                connection.close()
            return HttpReply(status=message.code, headers=message.headers, body=body)
        except BaseException:
            connection.close()
            raise
        finally:
            if sent is not None:
                sent.cancel()
            connection.release()

    def _with_trace(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        """Add the headers that continue a trace, unless the server is a stranger's.

        Strangers need not learn which requests belong together.
        """
        trace = trace_headers.get()
        return headers if trace is None or not self._allow_private else {**headers, **trace}

    def _open(self) -> aiohttp.TCPConnector:
        self._connector = aiohttp.TCPConnector(
            limit=self._max_in_flight,
            ttl_dns_cache=DNS_CACHE_S,
            keepalive_timeout=KEEPALIVE_S,
            ssl=_tls() if self.base_url.startswith("https:") else True,
            # Called for every address, including one written in the URL.
            socket_factory=cast("Any", None if self._allow_private else public_socket),
        )
        return self._connector

    def _target(self, path: str) -> aiohttp.ClientRequest:
        """Return the URL for this path, and the headers that all calls have."""
        target = self._targets.get(path)
        if target is None:
            url = URL(join_url(self.base_url, path), encoded=True)
            if url.scheme not in {"http", "https"}:
                raise aiohttp.InvalidURL(url)
            target = aiohttp.ClientRequest(
                "GET", url, headers=_HEADERS, loop=asyncio.get_running_loop()
            )
            if len(self._targets) < MAX_PATHS:
                self._targets[path] = target
        return target


def _is_stale(error: Exception) -> bool:
    """Return whether a pooled connection may have been closed just before the call."""
    if isinstance(error, aiohttp.ClientConnectorError):
        return False  # a new connection, which failed
    return isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError)


def _is_done(sent: asyncio.Future[None]) -> bool:
    return not sent.cancelled() and sent.exception() is None


def _failure(error: Exception) -> ProviderError:
    os_error = isinstance(error, aiohttp.ClientConnectorError) and error.os_error
    cause = os_error if isinstance(os_error, PrivateAddressError) else error
    kind, billed = next(each[1:] for each in FAILURES if isinstance(cause, each[0]))
    return ProviderError(kind, billed=billed)


async def _read_body(
    message: RawResponseMessage, content: aiohttp.StreamReader, max_bytes: int
) -> bytes:
    encoding = message.headers.get("Content-Encoding", "identity").lower()
    if message.code >= HTTPStatus.BAD_REQUEST and encoding != "identity":
        try:
            return await _decompress(content, encoding, min(max_bytes, MAX_PACKED_ERROR_BYTES))
        except ProviderError:
            return b""  # the status says enough
    return await _decompress(content, encoding, max_bytes)


async def _decompress(content: aiohttp.StreamReader, encoding: str, max_bytes: int) -> bytes:
    chunks: list[bytes] = []
    left = max_bytes
    decompressor = None
    if encoding in {"gzip", "x-gzip", "deflate"}:
        decompressor = zlib.decompressobj(zlib.MAX_WBITS | 32)
    elif encoding != "identity":
        raise ProviderError("malformed", "a content encoding that was not requested", billed="yes")
    while not content.at_eof():
        chunk = await content.readany()
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
