"""The HTTP server: which bytes are one request, and when a connection closes."""

import asyncio
import re
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from embedway.api.asgi import Receive, Scope, Send
from embedway.serving.http_server import HttpServer, ServerLimits

HEAD_TIMEOUT_S = 0.2
MAX_HEAD_BYTES = 2000
LARGE = b"x" * 2**20

Handler = Callable[[Scope, Receive, Send], Awaitable[None]]


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the method, the target and the body of the request."""
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message["body"]
        more = message["more_body"]
    text = f"{scope['method']} {scope['path']} {scope['query_string'].decode()} ".encode() + body
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": text})


async def in_pieces(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer in two pieces whose size is not told before."""
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"one ", "more_body": True})
    await send({"type": "http.response.body", "body": b"two", "more_body": False})


async def breaks(scope: Scope, receive: Receive, send: Send) -> None:
    raise RuntimeError("a defect")


async def breaks_off(scope: Scope, receive: Receive, send: Send) -> None:
    """Promise more than is sent."""
    head = [(b"content-length", b"10")]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": b"12345", "more_body": True})


async def splits_its_head(scope: Scope, receive: Receive, send: Send) -> None:
    """Put a line end into a header."""
    head = [(b"x-name", b"a\r\nset-cookie: b")]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": b""})


@asynccontextmanager
async def serving(handler: Handler, *, max_connections: int = 100) -> AsyncIterator[HttpServer]:
    """Serve a handler; the port is that of `server.port`."""
    bound = socket.create_server(("127.0.0.1", 0))
    limits = ServerLimits(
        head_timeout_s=HEAD_TIMEOUT_S,
        max_head_bytes=MAX_HEAD_BYTES,
        max_connections=max_connections,
    )
    server = HttpServer(handler, bound, limits)
    port = bound.getsockname()[1]
    running = asyncio.ensure_future(server.serve())
    await asyncio.sleep(0)
    server.port = port
    try:
        yield server
    finally:
        await server.stop()
        server.abort()
        await asyncio.wait_for(running, 10)


async def exchange(handler: Handler, *pieces: bytes) -> bytes:
    """Send pieces one after another; return all that the server sends until it closes."""
    async with serving(handler) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        answered = await asyncio.wait_for(reader.read(), 20)
        writer.close()
        return re.sub(rb"date: [^\r]*\r\n", b"", answered)


def answers(handler: Handler, *pieces: bytes) -> bytes:
    return asyncio.run(exchange(handler, *pieces))


def answer(body: bytes, *more: bytes, status: bytes = b"200 OK") -> bytes:
    lines = [b"HTTP/1.1 " + status, b"content-length: %d" % len(body), *more]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


CLOSE = b"connection: close"
GET = b"GET /a?b=c HTTP/1.1\r\nhost: x\r\n\r\n"
POST = b"POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello"
CHUNKED = (
    b"POST /a HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    b"2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\ntrailer: z\r\n\r\n"
)
LAST = b"GET /last HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
IS_LAST = answer(b"GET /last  ", CLOSE)

CASES = {
    "one after another": (GET + POST + LAST, answer(b"GET /a b=c ") + answer(b"POST /a  hello")),
    "in chunks": (CHUNKED + LAST, answer(b"POST /a  hello")),
    "a whole URL": (
        b"GET http://x:80/a?b HTTP/1.1\r\nhost: x\r\n\r\n" + LAST,
        answer(b"GET /a b "),
    ),
    "an encoded path": (
        b"GET /%C3%A9%2f HTTP/1.1\r\nhost: x\r\n\r\n" + LAST,
        answer("GET /é/  ".encode()),
    ),
    "an unknown method": (b"BREW /a HTTP/1.1\r\nhost: x\r\n\r\n" + LAST, answer(b"BREW /a  ")),
    "an offer to upgrade": (
        b"GET /a HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n" + LAST,
        answer(b"GET /a  "),
    ),
    "HTTP/1.0 that is kept": (
        b"GET /a HTTP/1.0\r\nconnection: keep-alive\r\n\r\n" + LAST,
        answer(b"GET /a  ", b"connection: keep-alive"),
    ),
    "empty lines before": (b"\r\n\r\n" + GET + LAST, answer(b"GET /a b=c ")),
}


@pytest.mark.parametrize("case", CASES)
def test_requests(case: str) -> None:
    """Each request gets its own answer, in order, and the connection is kept for the next."""
    sent, expected = CASES[case]
    assert answers(echo, sent) == expected + IS_LAST


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_pieces(data: st.DataObject) -> None:
    """However a stream of requests is cut into pieces, the answers are the same."""
    sent = GET + CHUNKED + POST + LAST
    cuts = sorted(data.draw(st.sets(st.integers(1, len(sent) - 1), max_size=6)))
    pieces = [sent[a:b] for a, b in zip([0, *cuts], [*cuts, len(sent)], strict=True)]
    expected = answer(b"GET /a b=c ") + answer(b"POST /a  hello") * 2 + IS_LAST
    assert answers(echo, *pieces) == expected


REFUSED = {
    "not HTTP": (b"hello there\r\n\r\n", b"400 Bad Request"),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"400 Bad Request"),
    "two lengths": (
        b"POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\na",
        b"400 Bad Request",
    ),
    "a length and chunks": (
        b"POST / HTTP/1.1\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"400 Bad Request",
    ),
    "a space before a colon": (b"GET / HTTP/1.1\r\nhost : x\r\n\r\n", b"400 Bad Request"),
    "a line that goes on": (b"GET / HTTP/1.1\r\nx: a\r\n b\r\n\r\n", b"400 Bad Request"),
    "a large header": (
        b"GET / HTTP/1.1\r\nx: " + b"y" * MAX_HEAD_BYTES + b"\r\n\r\n",
        b"431 Request Header Fields Too Large",
    ),
    "a large header without end": (
        b"GET / HTTP/1.1\r\nx: " + b"y" * MAX_HEAD_BYTES,
        b"431 Request Header Fields Too Large",
    ),
    "a long target": (
        b"GET /" + b"y" * MAX_HEAD_BYTES + b" HTTP/1.1\r\n\r\n",
        b"431 Request Header Fields Too Large",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    """What is not one clear request of a sane size is refused, and the connection closed."""
    sent, status = REFUSED[case]
    assert answers(echo, sent) == answer(b"", CLOSE, status=status)


def test_refused_after_a_request() -> None:
    """A request before the nonsense still gets its answer."""
    assert answers(echo, GET + b"nonsense\r\n\r\n").startswith(answer(b"GET /a b=c "))


def test_large_bodies_with_the_next_head() -> None:
    """The size of a body does not count towards the head after it."""
    size = 10 * MAX_HEAD_BYTES
    post = b"POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % size + b"y" * size
    expected = answer(b"POST /a  " + b"y" * size)
    for cut in (10, 40):
        assert answers(echo, post + GET[:cut], GET[cut:] + LAST) == (
            expected + answer(b"GET /a b=c ") + IS_LAST
        )


def test_continue() -> None:
    """A client that waits is told to send its body once the application asks for it."""

    async def run() -> None:
        async with serving(echo) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(
                b"POST /a HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n"
            )
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(b"hi")
            assert b"POST /a  hi" in await reader.readuntil(b"hi")
            writer.close()

    asyncio.run(run())


def test_pieces_of_unknown_size() -> None:
    """Such an answer is chunked, or ends with the connection for a client of HTTP/1.0."""
    expected = b"transfer-encoding: chunked\r\n\r\n4\r\none \r\n3\r\ntwo\r\n0\r\n\r\n"
    assert expected in answers(in_pieces, GET + LAST)
    old = answers(in_pieces, b"GET / HTTP/1.0\r\n\r\n")
    assert old == b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\none two"


def test_head_has_no_body() -> None:
    """An answer to HEAD has the head of the answer to GET."""
    sent = b"HEAD /a HTTP/1.1\r\nhost: x\r\n\r\n"
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n"
    assert answers(echo, sent + LAST) == head + IS_LAST


@pytest.mark.parametrize("handler", [breaks, splits_its_head])
def test_defects(handler: Handler) -> None:
    """A defect of the application is a 500, not silence."""
    status = b"500 Internal Server Error"
    assert answers(handler, GET) == answer(b"", CLOSE, status=status)


def test_a_part_is_not_taken_for_the_whole() -> None:
    """If the application stops in the middle of an answer, the connection breaks off."""
    expected = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n12345"
    assert answers(breaks_off, GET) == expected


@pytest.mark.parametrize("sent", [b"", b"GET / HT", GET], ids=["silent", "half a head", "idle"])
def test_slow_and_idle(sent: bytes) -> None:
    """A connection is closed if no head arrives in time, and after it was idle for as long."""
    with_answer = answer(b"GET /a b=c ") if sent == GET else b""
    assert answers(echo, sent) == with_answer


def test_a_client_that_leaves() -> None:
    """The application learns that the client has left, before and after the end of the body."""

    async def run() -> None:
        gone = asyncio.Queue[str]()

        async def handler(scope: Scope, receive: Receive, send: Send) -> None:
            while (message := await receive())["type"] == "http.request":
                pass
            gone.put_nowait(message["type"])

        async with serving(handler) as server:
            for sent in (POST, POST[:-2]):
                _, writer = await asyncio.open_connection("127.0.0.1", server.port)
                writer.write(sent)
                await writer.drain()
                writer.close()
                assert await asyncio.wait_for(gone.get(), 20) == "http.disconnect"

    asyncio.run(run())


def test_a_client_that_does_not_read() -> None:
    """The application waits for the client, and the connection ends when it does not come back."""

    async def run() -> None:
        sent = 0
        has_ended = asyncio.Event()

        async def handler(scope: Scope, receive: Receive, send: Send) -> None:
            nonlocal sent
            await receive()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            try:
                while True:
                    await send({"type": "http.response.body", "body": LARGE, "more_body": True})
                    sent += 1
            except ConnectionResetError:
                has_ended.set()
                raise

        async with serving(handler) as server:
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(GET)
            await writer.drain()
            before = -1
            while before != sent:
                before = sent
                await asyncio.sleep(0.1)
            assert sent < 100
            (connection,) = server.connections
            connection.abort()
            await asyncio.wait_for(has_ended.wait(), 20)
            writer.close()

    asyncio.run(run())


def test_bodies_wait_for_the_application() -> None:
    """No more of a body is read than the application takes."""

    async def run() -> None:
        reading = asyncio.Event()
        taken = asyncio.get_running_loop().create_future()

        async def handler(scope: Scope, receive: Receive, send: Send) -> None:
            await reading.wait()
            size, more = 0, True
            while more:
                message = await receive()
                size, more = size + len(message["body"]), message["more_body"]
            taken.set_result(size)

        async with serving(handler) as server:
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
            size = 64 * len(LARGE)
            writer.write(b"POST / HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % size)
            writing = asyncio.ensure_future(write_all(writer, size))
            before = -1
            while before != (before := writer.transport.get_write_buffer_size()):
                await asyncio.sleep(0.1)
            assert not writing.done()
            reading.set()
            assert await asyncio.wait_for(taken, 20) == size
            await writing
            writer.close()

    asyncio.run(run())


async def write_all(writer: asyncio.StreamWriter, size: int) -> None:
    for _ in range(size // len(LARGE)):
        writer.write(LARGE)
        await writer.drain()


def test_too_many_connections() -> None:
    """A connection above the limit is closed at once; the others stay."""

    async def run() -> None:
        async with serving(echo, max_connections=1) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(GET)
            assert await reader.readuntil(b"b=c ")
            other, other_writer = await asyncio.open_connection("127.0.0.1", server.port)
            assert await asyncio.wait_for(other.read(), 20) == b""
            other_writer.close()
            writer.write(GET)
            assert await reader.readuntil(b"b=c ")
            writer.close()

    asyncio.run(run())


def test_stop() -> None:
    """A stopped server finishes what it has begun, closes the rest, and takes nothing new."""

    async def run() -> None:
        begun, end = asyncio.Event(), asyncio.Event()

        async def handler(scope: Scope, receive: Receive, send: Send) -> None:
            begun.set()
            await end.wait()
            await echo(scope, receive, send)

        async with serving(handler) as server:
            connect = partial(asyncio.open_connection, "127.0.0.1", server.port)
            (idle, idle_writer), (busy, busy_writer) = await connect(), await connect()
            busy_writer.write(GET + GET)
            await begun.wait()
            await server.stop()
            assert await asyncio.wait_for(idle.read(), 20) == b""
            with pytest.raises(OSError):
                await connect()
            end.set()
            answered = await asyncio.wait_for(busy.read(), 20)
            assert answered.count(b"200 OK") == 1 and CLOSE in answered
            idle_writer.close()
            busy_writer.close()

    asyncio.run(run())


def test_what_came_while_the_event_loop_was_busy() -> None:
    """A request that waits to be read when the server stops is answered."""
    answered: list[bytes] = []

    async def run() -> None:
        has_sent = threading.Event()

        def ask(port: int) -> None:
            with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
                connection.sendall(GET)
                has_sent.set()
                answered.append(connection.recv(1000))

        async with serving(echo) as server:
            loop = asyncio.get_running_loop()
            asked = loop.run_in_executor(None, ask, server.port)
            due = loop.create_future()
            loop.call_later(0.001, due.set_result, None)
            assert has_sent.wait(20)  # blocks the event loop, and the timer is late
            await due
            await server.stop()
            await asked

    uvloop.run(run())
    assert b"200 OK" in answered[0]


def test_an_application_that_closes() -> None:
    """The application may end the connection, in whatever case it writes that."""

    async def closes(_: Scope, __: Receive, send: Send) -> None:
        head = [(b"connection", b"Close"), (b"content-length", b"0")]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": b""})

    answered = answers(closes, GET + GET)
    assert answered.count(b"200 OK") == 1
    assert answered.lower().count(b"connection: close") == 1
