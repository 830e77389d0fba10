"""Slow, silent, leaving and broken clients harm only themselves."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import httpx
import pytest
from conftest import Gateway
from raw_http import LARGE, PATH, Wire, body, gauge, give_large_answers, idle, until

from embedway.testing import Upstream

ASK = body(input="hello")


@pytest.fixture(scope="module")
def impatient(
    minilm: object, tmp_path_factory: pytest.TempPathFactory, upstream: Upstream
) -> Iterator[Gateway]:
    """A gateway with short timeouts."""
    settings = {"header_timeout_s": 1, "body_timeout_s": 1, "precision": "auto"}
    running = Gateway(tmp_path_factory.mktemp("impatient"), **settings)
    give_large_answers(running.folder, upstream)
    running.start()
    yield running
    running.kill()


@pytest.fixture(autouse=True)
def nothing_is_left(impatient: Gateway) -> Iterator[None]:
    """After each test nothing is in flight, and the gateway serves."""
    yield
    until(lambda: idle(impatient))
    assert impatient.embed(input="hello").status_code == 200


@contextlib.contextmanager
def dripping(wire: Wire, data: bytes) -> Iterator[None]:
    """Send `data` again and again, until the block ends."""
    over = threading.Event()

    def drip() -> None:
        with contextlib.suppress(OSError):
            while not over.wait(0.05):
                wire.send(data)

    thread = threading.Thread(target=drip)
    thread.start()
    yield
    over.set()
    thread.join()


def test_silent_connection_is_closed(impatient: Gateway):
    """A connection on which nothing is sent is closed."""
    with Wire(impatient) as wire:
        assert wire.reply() is None


def test_idle_connection_is_closed(impatient: Gateway):
    """A connection that is idle after a request is closed."""
    with Wire(impatient) as wire:
        wire.send_request(ASK)
        reply = wire.reply()
        assert reply is not None and reply.status_code == 200
        assert wire.closed()


def test_slow_header_is_cut_off(impatient: Gateway):
    """A head sent a byte at a time ends the connection: no byte extends the timeout."""
    with Wire(impatient) as wire:
        wire.send(f"POST {PATH} HTTP/1.1\r\nhost: test\r\nx-slow: ".encode())
        with dripping(wire, b"a"):
            assert wire.reply() is None


@pytest.mark.parametrize(
    ("framing", "sent"),
    [
        ("content-length: 100", b""),
        ("content-length: 100", b'{"input": '),
        ("transfer-encoding: chunked", b'5\r\n{"inp\r\n'),
        ("transfer-encoding: chunked", b""),
    ],
    ids=["nothing", "half", "half in chunks", "no chunk"],
)
def test_body_that_does_not_come(impatient: Gateway, framing: str, sent: bytes):
    """A body that does not arrive gets 408, and the connection is closed."""
    with Wire(impatient) as wire:
        wire.send_head(framing)
        wire.send(sent)
        reply = wire.reply()
        assert reply is not None and reply.status_code == 408
        assert set(reply.json()["error"]) == {"message", "type", "param", "code"}
        assert wire.closed()


@pytest.mark.parametrize(
    ("framing", "drop"),
    [("content-length: 100000", b"a"), ("transfer-encoding: chunked", b"1\r\na\r\n")],
    ids=["length", "chunks"],
)
def test_body_a_byte_at_a_time(impatient: Gateway, framing: str, drop: bytes):
    """A body sent a byte at a time gets 408: no byte and no chunk extends the timeout."""
    with Wire(impatient) as wire:
        wire.send_head(framing)
        with dripping(wire, drop):
            reply = wire.reply()
            assert reply is not None and reply.status_code == 408
            assert wire.closed()


def test_endless_body_is_cut_off(impatient: Gateway):
    """A body that never ends, sent as fast as possible, is refused and the connection closed."""
    chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
    with Wire(impatient) as wire:
        wire.send_head("transfer-encoding: chunked")
        with pytest.raises(OSError):  # noqa: PT012
            while True:
                wire.send(chunk)


@pytest.mark.parametrize("path", [PATH, "/v1/organization/projects"])
def test_refused_though_its_body_is_broken(impatient: Gateway, path: str):
    """A request refused because of its head gets that answer, even if its body is broken."""
    with Wire(impatient) as wire:
        head = f"POST {path} HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n"
        wire.send(head.encode() + b"not a length\r\n")
        reply = wire.reply()
        assert reply is not None and reply.status_code == 401


def test_refused_before_its_body_is_sent_in_full(impatient: Gateway):
    """A client refused while still sending reads the refusal, not a reset."""
    large = body(input="a" * 4_000_000)
    reply = httpx.post(f"{impatient.url}{PATH}", content=large, timeout=30)
    assert reply.status_code == 401
    over = httpx.post(
        f"{impatient.url}{PATH}",
        content=b" " * (17 * 2**20),
        headers={"authorization": f"Bearer {impatient.key}"},
        timeout=30,
    )
    assert over.status_code == 413


def test_hundreds_of_idle_connections(impatient: Gateway):
    """Hundreds of connections with half a request or none do not delay others."""
    with contextlib.ExitStack() as open_wires:
        for number in range(400):
            wire = open_wires.enter_context(Wire(impatient))
            if number % 2:
                wire.send_head("content-length: 10")
        for _ in range(5):
            assert impatient.embed(input="hello").status_code == 200


def test_clients_that_do_not_read(impatient: Gateway, upstream: Upstream):
    """Clients that never read a large answer neither block others nor hold memory for long."""
    before = len(upstream.calls)
    with contextlib.ExitStack() as open_wires:
        for _ in range(8):
            wire = open_wires.enter_context(Wire(impatient, receive_buffer=4096))
            wire.send_request(LARGE)
        until(lambda: len(upstream.calls) == before + 8)
        assert impatient.embed(input="hello").status_code == 200
        # Their connections are still open, but their memory is released.
        until(lambda: idle(impatient))


def test_a_client_that_reads_slowly_gets_it_all(impatient: Gateway):
    """A large answer arrives whole when read in small pieces."""
    with Wire(impatient, receive_buffer=65536) as wire:
        wire.send_request(LARGE)
        reply = wire.reply()
        assert reply is not None and len(reply.json()["data"]) == 2048


def test_work_of_a_client_that_left_is_dropped(impatient: Gateway):
    """The queued work of a client that disconnects is dropped."""
    embedded = 'embedway_batch_items_sum{model="all-minilm-l6-v2"}'
    before = gauge(impatient, embedded)
    with Wire(impatient) as wire:
        wire.send_request(body(input=["word " * 140] * 2048))
        until(lambda: gauge(impatient, "embedway_queue_tokens") > 50_000)
    until(lambda: gauge(impatient, "embedway_queue_tokens") == 0)
    until(lambda: idle(impatient))
    assert gauge(impatient, embedded) - before < 2048
    log = impatient.log.read_text()
    assert '"status":499' in log
    assert "Traceback" not in log


def test_clients_that_leave_at_any_moment(impatient: Gateway):
    """Whenever a client leaves, nothing of its request stays behind."""
    whole = f"POST {PATH} HTTP/1.1\r\nhost: test\r\nauthorization: Bearer {impatient.key}\r\n"
    request = f"{whole}content-length: {len(ASK)}\r\n\r\n".encode() + ASK
    for end in range(0, len(request) + 1, 7):
        with Wire(impatient) as wire:
            wire.send(request[:end])
    for _ in range(30):
        with Wire(impatient) as wire:
            wire.send(request)
            time.sleep(0.001)
    assert "Traceback" not in impatient.log.read_text()


def test_pipelined_requests(impatient: Gateway):
    """Requests sent without waiting for answers are all answered, in order."""
    with Wire(impatient) as wire:
        for number in range(20):
            wire.send_request(ASK, f"x-request-id: {number}")
        ids = []
        for _ in range(20):
            reply = wire.reply()
            assert reply is not None and reply.status_code == 200
            ids.append(reply.headers["x-request-id"])
    assert ids == [str(number) for number in range(20)]


def test_http_1_0(impatient: Gateway):
    """A client of HTTP/1.0 gets its answer, and the connection is closed."""
    with Wire(impatient) as wire:
        wire.send_request(ASK, version="1.0")
        reply = wire.reply()
        assert reply is not None and reply.status_code == 200
        assert wire.closed()


def test_expect_continue(impatient: Gateway):
    """A client that waits for `100 Continue` gets it, then its answer."""
    with Wire(impatient) as wire:
        wire.send_head(f"content-length: {len(ASK)}", "expect: 100-continue")
        first = wire.reply()
        assert first is not None and first.status_code == 100
        wire.send(ASK)
        reply = wire.reply()
        assert reply is not None and reply.status_code == 200


def test_body_in_single_byte_chunks(impatient: Gateway):
    """A body in chunks of one byte each is accepted."""
    with Wire(impatient) as wire:
        wire.send_head("transfer-encoding: chunked")
        wire.send(b"".join(b"1;extension=x\r\n%c\r\n" % byte for byte in ASK) + b"0\r\n\r\n")
        reply = wire.reply()
        assert reply is not None and reply.status_code == 200


@pytest.mark.parametrize(
    "head",
    [
        b"POST /v1/embeddings HTTP/1.1\r\nhost: a\r\nx: a\0b\r\n\r\n",
        b"POST /v1/embeddings HTTP/1.1\r\nhost: a\r\n" + b"x: y\r\n" * 100_000 + b"\r\n",
        b"POST /v1/embeddings HTTP/1.1\r\nhost: a\r\nx: " + b"y" * 2_000_000 + b"\r\n\r\n",
        b"POST /" + b"a" * 2_000_000 + b" HTTP/1.1\r\nhost: a\r\n\r\n",
        b"POST /v1/embeddings HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        b"POST /v1/embeddings HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"POST /v1/embeddings HTTP/1.1\r\ncontent-length: 99999999999999999999999\r\n\r\n",
        b"POST /v1/embeddings HTTP/1.1\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\nx",
        b"POST /v1/embeddings HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\0" * 100_000,
    ],
    ids=["nul", "flood", "long header", "long path", "negative", "two lengths", "huge length",
         "both framings", "bad chunk", "tls", "http2", "zeros"],
)  # fmt: skip
def test_what_is_not_http(impatient: Gateway, head: bytes):
    """Invalid HTTP gets a 4xx or a closed connection, and harms nobody."""
    with Wire(impatient) as wire:
        with contextlib.suppress(OSError):
            wire.send(head)
        reply = wire.reply()
        assert reply is None or 400 <= reply.status_code < 500
    assert "Traceback" not in impatient.log.read_text()


def test_resets_do_no_harm(impatient: Gateway):
    """Connections reset at any moment leave nothing behind."""
    for number in range(50):
        with socket.create_connection(("127.0.0.1", impatient.port)) as reset:
            reset.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            reset.sendall(f"POST {PATH} HTTP/1.1\r\nhost: a\r\n"[: number + 1].encode())
    assert impatient.embed(input="hello").status_code == 200


def test_many_connections_one_after_another(new_gateway: Callable[..., Gateway]):
    """Hundreds of connections leak no file descriptors."""
    gateway = new_gateway().start()
    assert gateway.process is not None

    def descriptors() -> int:
        return len(list((gateway.folder / f"/proc/{gateway.process.pid}/fd").iterdir()))

    assert gateway.embed(input="hello").status_code == 200
    before = descriptors()
    for _ in range(300):
        with Wire(gateway) as wire:
            wire.send(b"POST / HTTP/1.1\r\n")
    until(lambda: descriptors() <= before + 5)
