"""Keeps connections to one server: opens, reuses and closes them.

Owns the addresses of the server, the check of these, TLS, and how many connections there may be.
"""

import asyncio
import socket
import ssl
import sys
from collections import deque
from functools import lru_cache
from typing import Any

import aiohappyeyeballs
import truststore

from embedway.concurrency.single_flight import SingleFlight
from embedway.http.addresses import PrivateAddressError, require_public
from embedway.http.connection import Connection

CONNECT_TIMEOUT_S = 5.0
KEEPALIVE_S = 30.0
"""How long a connection is kept without a call."""
ADDRESSES_S = 60.0
"""How long the addresses of the server are kept."""
NEXT_ADDRESS_S = 0.25
"""How long to wait for one address before trying the next as well (RFC 8305)."""

_Address = tuple[int, int, int, str, tuple[Any, ...]]
"""An address as `socket.getaddrinfo` returns it."""


class ConnectFailed(OSError):
    """There is no connection: the name, the address, the port or TLS failed."""


class ConnectionPool:
    """Connections to one server. Opens none until one is needed."""

    def __init__(
        self, host: str, port: int, *, tls: bool, allow_private: bool, max_connections: int
    ) -> None:
        """Connect to a host, which may have private addresses if `allow_private`.

        Args:
            host: A name or an IP address.
            port: The server's port.
            tls: Whether to use TLS.
            allow_private: Whether its addresses may be private, link-local or loopback.
            max_connections: The most connections in use. Further callers wait their turn.
        """
        self._host = host
        self._port = port
        self._tls = tls
        self._allow_private = allow_private
        self._max_connections = max_connections
        self._in_use = 0
        """The connections in use or being opened."""
        self._open: set[Connection] = set()
        self._idle: list[tuple[Connection, float]] = []
        """The connections that wait for a call, each with the time until which it is kept."""
        self._closing_idle: asyncio.TimerHandle | None = None
        self._turns: deque[asyncio.Future[Connection | None]] = deque()
        """The callers that wait: each gets a connection, or None to open one."""
        self._addresses: list[_Address] = []
        self._addresses_until_s = 0.0
        self._resolving = SingleFlight(self._resolve)

    async def take(self) -> Connection:
        """Return a connection for one call; give it back afterwards, whatever became of it.

        Raises:
            PrivateAddressError: All addresses of the host are private.
            ConnectFailed: No connection can be opened.
        """
        connection = self._take_idle()
        if connection is None and self._in_use >= self._max_connections:
            connection = await self._wait_for_turn()
        else:
            self._in_use += 1
        if connection is not None:
            return connection
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                return await self._connect()
        except TimeoutError:
            self._pass_on(None)
            raise ConnectFailed(f"no connection within {CONNECT_TIMEOUT_S:g} s") from None
        except BaseException:
            self._pass_on(None)
            raise

    def give_back(self, connection: Connection) -> None:
        """Keep a connection for the next call if it is still open, or else close it."""
        if connection.is_open:
            self._pass_on(connection)
        else:
            connection.abort()
            self._pass_on(None)

    async def aclose(self) -> None:
        """Close all connections."""
        if self._closing_idle is not None:
            self._closing_idle.cancel()
        await self._resolving.aclose()
        for each in list(self._open):
            each.abort()
        await asyncio.sleep(0)  # lets the event loop close their sockets

    def _take_idle(self) -> Connection | None:
        while self._idle:
            connection, until_s = self._idle.pop()
            if connection.is_open:
                if until_s > asyncio.get_running_loop().time():
                    return connection
                connection.abort()
        return None

    async def _wait_for_turn(self) -> Connection | None:
        turn: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()
        self._turns.append(turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._turns.remove(turn)
            else:
                self._pass_on(turn.result())
            raise

    def _pass_on(self, connection: Connection | None) -> None:
        """Give a place, with its connection if there is one, to the next caller that waits."""
        while self._turns:
            turn = self._turns.popleft()
            if not turn.done():
                turn.set_result(connection)
                return
        self._in_use -= 1
        if connection is not None:
            loop = asyncio.get_running_loop()
            self._idle.append((connection, loop.time() + KEEPALIVE_S))
            if self._closing_idle is None:
                self._closing_idle = loop.call_later(KEEPALIVE_S, self._close_idle)

    def _close_idle(self) -> None:
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        for connection, until_s in self._idle:
            if until_s <= now_s:
                connection.abort()
        self._idle = [each for each in self._idle if each[0].is_open]
        self._closing_idle = None
        if self._idle:
            self._closing_idle = loop.call_at(self._idle[0][1], self._close_idle)

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        if not self._addresses or loop.time() >= self._addresses_until_s:
            await self._resolving.wait()
        addresses = self._addresses
        self._addresses = addresses[1:] + addresses[:1]  # the next connection tries another first
        try:
            opened = await aiohappyeyeballs.start_connection(  # pyright: ignore[reportUnknownMemberType]
                addresses, happy_eyeballs_delay=NEXT_ADDRESS_S
            )
        except (OSError, RuntimeError) as error:  # uvloop raises both
            self._addresses = []  # they may have changed
            raise ConnectFailed(str(error)) from error
        try:
            _, connection = await loop.create_connection(
                lambda: Connection(loop, self._open.discard),
                sock=opened,
                ssl=_tls() if self._tls else None,
                server_hostname=self._host.rstrip(".") if self._tls else None,
            )
        except BaseException as error:
            opened.close()
            if isinstance(error, OSError):
                raise ConnectFailed(str(error)) from error
            raise
        self._open.add(connection)
        return connection

    async def _resolve(self) -> None:
        """Look the host up, and keep those of its addresses that may be called.

        Raises:
            PrivateAddressError: All of them are private.
            ConnectFailed: The host has no address.
        """
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(
                self._host, self._port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
            )
        except OSError as error:
            raise ConnectFailed(str(error)) from error
        refusal: PrivateAddressError | None = None
        addresses: list[_Address] = []
        for each in found:
            try:
                if not self._allow_private:
                    require_public(str(each[4][0]))
                addresses.append(each)
            except PrivateAddressError as error:
                refusal = error
        if not addresses:
            raise refusal or ConnectFailed(f"{self._host} has no address")
        self._addresses, self._addresses_until_s = addresses, loop.time() + ADDRESSES_S


@lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    # Use the system's certificates, which may include a company's own. On Linux OpenSSL reads them
    # once by itself; truststore would read them for each connection, 18 ms on the event loop.
    if sys.platform == "linux":
        return ssl.create_default_context()
    return truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
