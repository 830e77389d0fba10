"""Sends HTTP calls to one server, with a pool of connections.

Knows nothing about embeddings. `connection` speaks HTTP, and `pool` keeps the connections and
checks which addresses may be called.
"""

import re
from base64 import b64encode
from collections.abc import Mapping
from typing import Protocol

from yarl import URL

import embedway
from embedway.core.provider_error import Billable, FailureKind, ProviderError
from embedway.http.addresses import PrivateAddressError
from embedway.http.call import HttpCall, HttpReply, join_url, trace_headers
from embedway.http.connection import (
    ConnectionClosed,
    IncompleteReply,
    MalformedReply,
    UnsolicitedData,
)
from embedway.http.pool import ConnectFailed, ConnectionPool

_HEADERS = {
    "content-type": "application/json",
    "accept": "application/json",
    # Compression hardly shrinks floats. Replies that are compressed anyway are read up to a limit.
    "accept-encoding": "identity",
    "user-agent": f"embedway/{embedway.__version__}",
}

_ORIGIN = re.compile("[^:/?#]+://[^/?#]*")
"""The part of a URL before its path."""

MAX_TARGETS = 256
"""The most targets to keep. Bounded because clients choose the model in some paths."""
MAX_UNSOLICITED = 3
"""The most connections that one call may drop because of unsolicited data."""


# What each exception below HTTP means, and whether the call may be billed. The first match wins.
FAILURES: tuple[tuple[type[BaseException], FailureKind, Billable], ...] = (
    (PrivateAddressError, "unreachable", "not sent"),
    (UnsolicitedData, "unreachable", "not sent"),
    (ConnectFailed, "unreachable", "no"),  # DNS, refused, TLS
    (TimeoutError, "timeout", "maybe"),
    (ConnectionClosed, "unreachable", "maybe"),
    (IncompleteReply, "failed", "maybe"),
    (MalformedReply, "malformed", "maybe"),  # not HTTP, or an endless head
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
        self._pool: ConnectionPool | None = None
        self._defaults: dict[str, str] = {}
        """The headers of every call, once the pool is open."""
        self._targets: dict[str, str] = {}
        """The target of the request line, by the path of the call."""

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
                unsolicited = isinstance(error, UnsolicitedData) and tries < MAX_UNSOLICITED
                # The server may have closed a kept connection just before the call.
                is_stale = isinstance(error, ConnectionClosed) and call.method == "GET"
                if not unsolicited and (tries > 1 or not is_stale):
                    kind, billed = next(each[1:] for each in FAILURES if isinstance(error, each[0]))
                    raise ProviderError(kind, billed=billed) from error

    async def aclose(self) -> None:
        """Close all connections."""
        if self._pool:
            await self._pool.aclose()

    async def _exchange(
        self, call: HttpCall, headers: Mapping[str, str], max_bytes: int
    ) -> HttpReply:
        """Send one call on one connection, and read the reply."""
        pool = self._pool or self._open()
        head = self._head(call, headers)
        connection = await pool.take()
        try:
            return await connection.exchange(head, call.body, max_bytes=max_bytes)
        finally:
            pool.give_back(connection)

    def _open(self) -> ConnectionPool:
        url = URL(self.base_url)
        if url.scheme not in {"http", "https"} or not url.raw_host or not url.port:
            raise ValueError(f"{self.base_url!r} is not the address of a server")
        self._defaults = {"host": url.host_port_subcomponent or "", **_HEADERS}
        if url.user is not None:
            login = f"{url.user}:{url.password or ''}".encode()
            self._defaults["authorization"] = f"Basic {b64encode(login).decode()}"
        self._pool = ConnectionPool(
            url.raw_host,
            url.port,
            tls=url.scheme == "https",
            allow_private=self._allow_private,
            max_connections=self._max_in_flight,
        )
        return self._pool

    def _head(self, call: HttpCall, headers: Mapping[str, str]) -> bytes:
        """Return the request line and the headers.

        Raises:
            ValueError: A header or the path would end a line early.
        """
        fields = self._defaults
        if call.headers:
            fields = fields | {name.lower(): value for name, value in call.headers.items()}
        trace = trace_headers.get()
        # Strangers need not learn which requests belong together.
        if trace is not None and self._allow_private:
            headers = {**headers, **trace}
        fields = fields | {name.lower(): value for name, value in headers.items()}
        if call.body or call.method != "GET":
            fields["content-length"] = str(len(call.body))
        lines = [f"{call.method} {self._target(call.path)} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in fields.items()]
        head = "\r\n".join(lines)
        breaks = len(lines) - 1
        if head.count("\r") > breaks or head.count("\n") > breaks or "\0" in head:
            raise ValueError("a header of the call would break its line")
        return f"{head}\r\n\r\n".encode()

    def _target(self, path: str) -> str:
        target = self._targets.get(path)
        if target is None:
            target = _ORIGIN.sub("", join_url(self.base_url, path), count=1)
            if not target.startswith("/"):
                target = f"/{target}"
            if " " in target:
                raise ValueError("the path of the call would break its line")
            if len(self._targets) < MAX_TARGETS:
                self._targets[path] = target
        return target
