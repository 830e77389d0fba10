"""Serves an ASGI application over HTTP/1.1 on the event loop of this process.

Parsing is llhttp's, through httptools. This module decides which bytes belong to which request, how
long a head may take, and when a connection closes. `docs/decisions/0002-server.md` says why it is
our own.
"""

import asyncio
import re
import socket
from collections import deque
from collections.abc import Awaitable
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Any, cast
from urllib.parse import unquote

import httptools
import msgspec
import structlog

from embedway.api.asgi import Application, Headers
from embedway.serving.address import BACKLOG
from embedway.serving.exchange import Exchange, status_line

SETTLING_TURNS = 5
"""How often the event loop turns until it has accepted the connections that wait and has begun to
read their requests. Each takes two turns."""
JOINED_BYTES = 2**16
"""An answer up to this size is copied into one piece, because one write is cheaper than two."""

_ASGI = {"version": "3.0", "spec_version": "2.3"}

_METHOD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}) ")
"""A method, as RFC 9110 allows it."""

_log = structlog.get_logger("embedway.serve")


class ServerLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a client may take of the server."""

    head_timeout_s: float
    """How long a head may take to arrive, and how long a connection may be idle."""
    max_head_bytes: int
    """The largest request line and headers."""
    max_connections: int
    """The most connections. Further ones are closed at once."""


class HttpServer:
    """A server on a bound socket."""

    def __init__(
        self, application: Application, bound: socket.socket, limits: ServerLimits
    ) -> None:
        self.application = application
        self.limits = limits
        self.connections: set[ServerConnection] = set()
        self.is_stopping = False
        self._bound = bound
        self._server: asyncio.Server | None = None
        self._all_closed = asyncio.Event()

    async def serve(self) -> None:
        """Answer requests until `stop` was called and every connection is closed."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: ServerConnection(self, loop), sock=self._bound, backlog=BACKLOG
        )
        await self._all_closed.wait()

    def stop_accepting(self) -> None:
        """Take no more connections; those that wait are left to others with the same socket."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def stop(self) -> None:
        """Take no more connections or requests; answer the requests that have come."""
        # After a pause of the event loop, timers run before what has come meanwhile is read. Linux
        # would reset these connections.
        for _ in range(SETTLING_TURNS):
            await asyncio.sleep(0)
        self.is_stopping = True
        self.stop_accepting()
        for each in list(self.connections):
            each.close_if_idle()
        self.forget(None)

    def abort(self) -> None:
        """Close all connections, whatever they are doing."""
        for each in list(self.connections):
            each.abort()

    def forget(self, connection: "ServerConnection | None") -> None:
        """Note that a connection is closed."""
        if connection is not None:
            self.connections.discard(connection)
        if self.is_stopping and not self.connections:
            self._all_closed.set()


class ServerConnection(asyncio.Protocol):
    """One connection of a client. It answers one request after another."""

    __slots__ = (
        *("_client", "_current", "_does_piece_begin", "_drained", "_has_failed"),
        *("_has_head_begun", "_head_bytes", "_headers", "_idle_since_s", "_is_reading_paused"),
        *("_method", "_parser", "_piece_bytes", "_reading", "_server", "_server_address"),
        *("_timer", "_transport", "_url", "_waiting", "loop", "ready"),
    )

    def __init__(self, server: HttpServer, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.ready: asyncio.Future[None] = loop.create_future()
        """A future that is done, for writes that need no waiting."""
        self.ready.set_result(None)
        self._server = server
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""
        self._headers: Headers = []
        self._has_head_begun = False
        """Whether a head is arriving."""
        self._head_bytes = 0
        """The bytes of this head, without the piece that it began in."""
        self._does_piece_begin = False
        """Whether the piece that is being read begins with a head that has not begun yet."""
        self._method = ""
        """The method of the head that is arriving, if llhttp does not know it."""
        self._piece_bytes = 0
        """The size of the piece that is being read."""
        self._reading: Exchange | None = None
        """The request whose body is arriving."""
        self._current: Exchange | None = None
        """The request that is being answered."""
        self._waiting: deque[Exchange] = deque()
        """The requests that came before the current one was answered."""
        self._has_failed = False
        """Whether the client sent what is not HTTP. Nothing more of it is read."""
        self._idle_since_s = loop.time()
        """Since when the server waits for a head, on the loop's clock."""
        self._timer: asyncio.TimerHandle | None = None
        self._drained: asyncio.Future[None] | None = None
        """Is done once the client has taken enough of the answer."""
        self._is_reading_paused = False

    @property
    def is_stopping(self) -> bool:
        """Whether this is the last answer of the connection, because the server stops."""
        return self._server.is_stopping

    def write(self, *pieces: bytes) -> Awaitable[None]:
        """Write to the client; the result is done when it is not behind."""
        if self._transport.is_closing():
            return self.ready
        if len(pieces) == 1 or sum(map(len, pieces)) <= JOINED_BYTES:
            self._transport.write(b"".join(pieces))
        else:
            self._transport.writelines(pieces)
        return self._drained or self.ready

    def date(self) -> bytes:
        """Return the header `date`."""
        return _date(int(self.loop.time()))

    def pause_reading(self) -> None:
        """Read nothing more from the client for now."""
        if not self._is_reading_paused and not self._transport.is_closing():
            self._is_reading_paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Go on reading from the client."""
        if self._is_reading_paused and not self._waiting and not self._transport.is_closing():
            self._is_reading_paused = False
            self._transport.resume_reading()

    def close_if_idle(self) -> None:
        """Close the connection unless a request is under way."""
        if self._current is None:
            self._transport.close()

    def abort(self) -> None:
        """Close the connection at once."""
        self._transport.abort()

    # What follows is called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for a request."""
        self._transport = cast("asyncio.Transport", transport)
        server = self._server
        if server.is_stopping or len(server.connections) >= server.limits.max_connections:
            transport.close()
            return
        server.connections.add(self)
        self._client = _address(transport.get_extra_info("peername"))
        self._server_address = _address(transport.get_extra_info("sockname"))
        self._timer = self.loop.call_later(server.limits.head_timeout_s, self._check_head)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Tell the application that the client has left."""
        self._server.forget(self)
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
        if self._drained is not None:
            self.resume_writing()
        if self._current is not None:
            self._current.leave()

    def pause_writing(self) -> None:
        """Let the application wait, because the client is behind."""
        self._drained = self.loop.create_future()

    def resume_writing(self) -> None:
        """Let the application go on."""
        drained, self._drained = self._drained, None
        if drained is not None and not drained.done():
            drained.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Read a part of a request."""
        while data and not self._has_failed:
            self._piece_bytes = len(data)
            begins = self._reading is None and not self._has_head_begun
            self._does_piece_begin = begins
            if self._has_head_begun:
                self._head_bytes += len(data)
            try:
                self._parser.feed_data(data)
                data = b""
            except httptools.HttpParserUpgrade as upgrade:
                data = data[upgrade.args[0] :]  # no upgrade is offered: it goes on as before
            except httptools.HttpParserInvalidMethodError:
                # llhttp knows a fixed set of methods. The application refuses the others.
                method = _METHOD.match(data) if begins else None
                if method is None:
                    self._fail(HTTPStatus.BAD_REQUEST)
                    return
                self._method = method[1].decode("ascii")
                self._parser = httptools.HttpRequestParser(self)
                data = b"PATCH " + data[method.end() :]
            except httptools.HttpParserCallbackError:
                raise  # a defect of ours
            except httptools.HttpParserError:
                self._fail(HTTPStatus.BAD_REQUEST)
        if self._has_head_begun and self._head_bytes > self._server.limits.max_head_bytes:
            self._fail(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def _check_head(self) -> None:
        """Close the connection if the server has waited too long for a head."""
        now_s, timeout_s = self.loop.time(), self._server.limits.head_timeout_s
        due_s = (now_s if self._current is not None else self._idle_since_s) + timeout_s
        if due_s <= now_s:
            self._transport.abort()
        else:
            self._timer = self.loop.call_at(due_s, self._check_head)

    # What follows is called by the parser.

    def on_message_begin(self) -> None:
        """Begin to read a head."""
        self._url, self._headers = b"", []
        # If the piece holds more than this head, what belongs to the head is not known.
        self._head_bytes = self._piece_bytes if self._does_piece_begin else 0
        self._has_head_begun, self._does_piece_begin = True, False
        self._idle_since_s = self.loop.time()

    def on_url(self, url: bytes) -> None:
        """Keep a part of the target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header. Trailers are not kept."""
        if self._reading is None:
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Begin a request."""
        self._has_head_begun = False
        most = self._server.limits.max_head_bytes
        if (
            self._head_bytes + self._piece_bytes > most
            and _head_size(self._url, self._headers) > most
        ):
            self._fail(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            return
        path, raw_path, query = _split_target(self._url)
        exchange = Exchange(
            self,
            {
                "type": "http",
                "asgi": _ASGI,
                "http_version": self._parser.get_http_version(),
                "method": self._method or self._parser.get_method().decode("ascii"),
                "scheme": "http",
                "path": path,
                "raw_path": raw_path,
                "query_string": query,
                "root_path": "",
                "headers": self._headers,
                "client": self._client,
                "server": self._server_address,
            },
        )
        self._method = ""
        exchange.keeps_alive = self._parser.should_keep_alive()
        for name, value in self._headers:
            if name == b"expect" and value.lower() == b"100-continue":
                exchange.expect_continue()
        self._reading = exchange
        if self._current is None:
            self._start(exchange)
        else:
            self._waiting.append(exchange)
            self.pause_reading()

    def on_body(self, chunk: bytes) -> None:
        """Pass on a piece of the body."""
        if self._reading is not None:
            self._reading.add(chunk)

    def on_message_complete(self) -> None:
        """End the request."""
        if self._reading is not None:
            self._reading.end()
            self._reading = None

    def _start(self, exchange: Exchange) -> None:
        self._current = exchange
        exchange.task = self.loop.create_task(self._run(exchange))

    async def _run(self, exchange: Exchange) -> None:
        """Let the application answer a request, and then begin with the next."""
        try:
            await self._server.application(exchange.scope, exchange.receive, exchange.send)
        except ConnectionResetError:
            pass  # the client has left
        except Exception:  # noqa: BLE001  # the top of a task
            _log.exception("a request broke")
            if not exchange.has_started:
                self._transport.write(status_line(HTTPStatus.INTERNAL_SERVER_ERROR) + _EMPTY)
                self._transport.close()
        finally:
            self._finish(exchange)

    def _finish(self, exchange: Exchange) -> None:
        self._current = None
        self._idle_since_s = self.loop.time()
        transport = self._transport
        if transport.is_closing():
            return
        if not exchange.is_answered:
            transport.abort()  # the client must not take a part for the whole
        elif self._has_failed or self._server.is_stopping or not exchange.keeps_alive:
            transport.close()
        elif self._waiting:
            self._start(self._waiting.popleft())
            self.resume_reading()
        else:
            self.resume_reading()

    def _fail(self, status: HTTPStatus) -> None:
        """Refuse what the client sends, and read nothing more of it."""
        if self._has_failed:
            return
        self._has_failed = True
        if self._reading is not None:
            self._reading.leave()  # the application answers
        elif self._current is None:
            self._transport.write(status_line(status) + _EMPTY)
            self._transport.close()


_EMPTY = b"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


@lru_cache(maxsize=1)
def _date(second: int) -> bytes:  # noqa: ARG001  # the time is read once a second
    return b"date: " + formatdate(usegmt=True).encode("ascii")


def _head_size(target: bytes, headers: Headers) -> int:
    return len(target) + sum(len(name) + len(value) + 4 for name, value in headers)


def _address(address: Any) -> tuple[str, int] | None:
    if not isinstance(address, tuple):
        return None  # a Unix socket has none
    host, port, *_ = cast("tuple[Any, ...]", address)
    return str(host), int(port)


def _split_target(target: bytes) -> tuple[str, bytes, bytes]:
    """Return the path, decoded and as it was sent, and the query of a request's target."""
    if not target.startswith(b"/"):
        # Proxies get a whole URL as their target.
        _, scheme, rest = target.partition(b"://")
        target = b"/" + rest.partition(b"/")[2] if scheme else target
    raw_path, _, query = target.partition(b"?")
    path = raw_path.decode("latin-1")
    return (unquote(path) if "%" in path else path), raw_path, query
