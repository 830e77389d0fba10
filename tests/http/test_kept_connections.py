"""No call on a pooled connection gets the reply to another, whatever the server sends."""

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from embedway.core.provider_error import ProviderError
from embedway.http.call import HttpCall
from embedway.http.client import MAX_UNSOLICITED, HttpClient

MAX_BYTES = 10_000
UNASKED = b"an answer that nobody asked for"
TURNS = 20
"""Turns of the event loop that suffice to read a socket."""

Write = Callable[[StreamWriter, bytes], Awaitable[None]]
"""Answers one call. The right reply is the call's own body."""


def answer(body: bytes, *, more: bytes = b"", status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 %b\r\ncontent-length: %d\r\n%b\r\n%b" % (status, len(body), more, body)


class Server:
    """Answers the first call with `write`, and each other call with its own body."""

    def __init__(self, write: Write, *, greeting: bytes = b"") -> None:
        self.connections = 0
        self.calls: list[bytes] = []
        self.has_written = asyncio.Event()
        self.tasks: list[asyncio.Task[None]] = []
        self._write = write
        self._greeting = greeting

    async def connected(self, reader: StreamReader, writer: StreamWriter) -> None:
        self.connections += 1
        self.tasks.append(asyncio.current_task())
        writer.write(self._greeting)
        with suppress(EOFError, OSError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    line.partition(b":")[2]
                    for line in head.lower().split(b"\r\n")
                    if line.startswith(b"content-length:")
                )
                body = await reader.readexactly(int(length))
                self.calls.append(body)
                if len(self.calls) == 1:
                    await self._write(writer, body)
                    self.has_written.set()
                else:
                    writer.write(answer(body))
        writer.close()


@asynccontextmanager
async def running(server: Server) -> AsyncIterator[HttpClient]:
    listening = await asyncio.start_server(server.connected, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    http = HttpClient(f"http://127.0.0.1:{port}", allow_private=True, max_in_flight=1)
    async with listening:
        try:
            yield http
        finally:
            await http.aclose()
            await asyncio.wait(server.tasks)


async def call(http: HttpClient, body: bytes) -> bytes:
    """Return the body of the reply; empty if the call fails."""
    try:
        sent = http.send(HttpCall(path="/x", body=body), headers={}, max_bytes=MAX_BYTES)
        async with asyncio.timeout(20):
            return (await sent).body
    except ProviderError:
        return b""


async def read_all() -> None:
    for _ in range(TURNS):
        await asyncio.sleep(0)


def later(*pieces: bytes) -> Write:
    """Answer correctly, then write each piece on its own before the next call."""

    async def write(writer: StreamWriter, body: bytes) -> None:
        writer.write(answer(body))
        for piece in pieces:
            await read_all()
            writer.write(piece)

    return write


def at_once(make: Callable[[bytes], bytes]) -> Write:
    """Write the result of `make`."""

    async def write(writer: StreamWriter, body: bytes) -> None:
        writer.write(make(body))

    return write


async def in_one_piece_with_the_end(writer: StreamWriter, body: bytes) -> None:
    """Write the end of the first reply in one piece with a second reply."""
    whole = answer(body)
    writer.write(whole[:-1])
    await read_all()
    writer.write(whole[-1:] + answer(UNASKED))


async def endless_chunks(writer: StreamWriter, _: bytes) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    with suppress(OSError):
        while not writer.is_closing():
            writer.write(b"400\r\n" + b" " * 1024 + b"\r\n")
            await writer.drain()
            await asyncio.sleep(0)


SECOND = answer(UNASKED)
CASES: dict[str, tuple[Write, bool]] = {
    # The second value says whether the first call gets its reply.
    "a second answer": (later(SECOND), True),
    "many answers": (later(*[SECOND] * 5), True),
    "a second answer in halves": (later(SECOND[:20], SECOND[20:]), True),
    "a second answer at once": (at_once(lambda body: answer(body) + SECOND), True),
    "a second answer in one piece with the end": (in_one_piece_with_the_end, True),
    "a second answer to be closed": (later(answer(UNASKED, more=b"connection: close\r\n")), True),
    "an answer without an end": (later(b"HTTP/1.1 200 OK\r\n\r\n" + UNASKED), True),
    "half an answer": (later(SECOND[:-5]), True),
    "half a head": (later(SECOND[:20]), True),
    "early hints": (later(b"HTTP/1.1 103 Early Hints\r\n\r\n"), True),
    "100 Continue": (later(b"HTTP/1.1 100 Continue\r\n\r\n"), True),
    "a switch of protocols": (
        later(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n", SECOND),
        True,
    ),
    "line ends": (later(b"\r\n\r\n"), True),
    "zeros": (later(bytes(8)), True),
    "words": (later(b"and another thing: "), True),
    "hints first": (at_once(lambda body: b"HTTP/1.1 103 Hints\r\n\r\n" + answer(body)), True),
    "content-length too short": (
        at_once(lambda body: answer(body).replace(b"length: 3", b"length: 1")), False,
    ),
    "content-length that leaves out an answer": (at_once(lambda body: answer(body) + SECOND), True),
    "content-length too long": (
        at_once(lambda body: answer(body).replace(b"length: 3", b"length: 12") + SECOND), False,
    ),
    "endless chunks": (endless_chunks, False),
    "chunks that go on": (
        at_once(
            lambda body: (
                b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
                b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) + SECOND
            )
        ),
        True,
    ),
    "no content, with a body": (
        at_once(lambda _: answer(SECOND, status=b"204 No Content")), False,
    ),
    "not modified, with a body": (
        at_once(lambda _: answer(SECOND, status=b"304 Not Modified")), False,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_no_call_gets_what_it_did_not_ask_for(case: str) -> None:
    """Whatever comes with or after a reply, later calls get their own replies."""
    write, is_right = CASES[case]

    async def run() -> None:
        server = Server(write)
        async with running(server) as http:
            first = await call(http, b"one")
            assert (first == b"one") == is_right
            await server.has_written.wait()
            for body in (b"two", b"six"):
                await read_all()
                assert await call(http, body) == body

    asyncio.run(run())


def test_a_good_connection_is_kept() -> None:
    """A connection without unsolicited data is reused."""

    async def run() -> None:
        server = Server(later())
        async with running(server) as http:
            for body in (b"one", b"two", b"six"):
                assert await call(http, body) == body
                await read_all()
        assert server.connections == 1

    asyncio.run(run())


def test_a_server_that_speaks_first() -> None:
    """Data before the first call may fail that call, but never answers another."""

    async def run() -> None:
        server = Server(later(), greeting=answer(UNASKED))
        async with running(server) as http:
            for body in (b"one", b"two", b"six"):
                assert await call(http, body) in {body, UNASKED, b""}
                await read_all()
        # The reply to `one` is never left for `two`.
        assert server.connections <= 3 * MAX_UNSOLICITED

    asyncio.run(run())


@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
def test_an_answer_before_the_whole_call_is_sent() -> None:
    """The connection of a call that is answered before it is sent is not reused."""

    async def run() -> None:
        reading = asyncio.Event()
        tasks: list[asyncio.Task[None]] = []

        async def connected(reader: StreamReader, writer: StreamWriter) -> None:
            tasks.append(asyncio.current_task())
            with suppress(EOFError, OSError):
                while head := await reader.readuntil(b"\r\n\r\n"):
                    if len(tasks) == 1:
                        writer.write(answer(b"too large", status=b"413 Too Large"))
                        await reading.wait()
                    length = int(head.lower().partition(b"content-length:")[2].split()[0])
                    body = await reader.readexactly(length)
                    writer.write(answer(body[:3]))
            writer.close()

        listening = await asyncio.start_server(connected, "127.0.0.1", 0)
        port = listening.sockets[0].getsockname()[1]
        http = HttpClient(f"http://127.0.0.1:{port}", allow_private=True, max_in_flight=1)
        async with listening:
            # More than the system buffers for a server that does not read.
            assert await call(http, b"one" * 2**23) == b"too large"
            second = asyncio.create_task(call(http, b"two"))
            await read_all()
            reading.set()
            assert await second == b"two"
            assert len(tasks) == 2
            await http.aclose()
            await asyncio.wait(tasks)

    asyncio.run(run())


@pytest.mark.parametrize("at", [0, 10, 45, 60])
def test_a_call_that_is_given_up(at: int) -> None:
    """The rest of a cancelled call's reply does not answer the next call."""

    async def run() -> None:
        half, whole = asyncio.Event(), asyncio.Event()

        async def write(writer: StreamWriter, body: bytes) -> None:
            reply = answer(body * 20)
            writer.write(reply[:at])
            half.set()
            await whole.wait()
            writer.write(reply[at:])

        async with running(Server(write)) as http:
            first = asyncio.create_task(call(http, b"one"))
            await half.wait()
            await read_all()
            first.cancel()
            await asyncio.wait([first])
            whole.set()
            await read_all()
            assert await call(http, b"two") == b"two"

    asyncio.run(run())
