"""Under ten times the load, excess requests get 503, memory is bounded, and service recovers."""

import contextlib
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import httpx
from conftest import Gateway
from raw_http import LARGE, Wire, body, gauge, give_large_answers, idle, load, until

from embedway.testing import Upstream

TEXTS_300K = ["word " * 144] * 2048
MOST_RSS = 2**30


def memory(gateway: Gateway, which: str = "VmRSS") -> int:
    """Return the memory of the process in bytes, or with `VmHWM` its peak."""
    assert gateway.process is not None
    status = Path(f"/proc/{gateway.process.pid}/status").read_text().splitlines()
    return int(next(line for line in status if line.startswith(which)).split()[1]) * 1024


def assert_overloaded(reply: httpx.Response) -> None:
    error = reply.json()["error"]
    assert (reply.status_code, error["code"]) == (503, "server_is_overloaded")
    assert error["type"] == "service_unavailable_error"
    assert 1 <= int(reply.headers["retry-after"]) <= 120
    assert 0 < int(reply.headers["retry-after-ms"]) <= int(reply.headers["retry-after"]) * 1000


def test_too_many_requests_at_once(new_gateway: Callable[..., Gateway]):
    """Requests beyond max_in_flight get 503 with a jittered Retry-After."""
    gateway = new_gateway(max_in_flight=4).start()
    content = body(input="hello")
    with contextlib.ExitStack() as wires:
        held = [wires.enter_context(Wire(gateway)) for _ in range(4)]
        for wire in held:
            wire.send_head(f"content-length: {len(content)}")
        until(lambda: gauge(gateway, "embedway_requests_in_flight") == 4)
        refused = [gateway.embed(input="hello") for _ in range(10)]
        for reply in refused:
            assert_overloaded(reply)
        assert len({reply.headers["retry-after-ms"] for reply in refused}) > 1
        assert httpx.get(f"{gateway.url}/livez").status_code == 200
        for wire in held:
            wire.send(content)
            reply = wire.reply()
            assert reply is not None and reply.status_code == 200
    until(lambda: idle(gateway))
    assert gateway.embed(input="hello").status_code == 200


def test_too_many_bytes_at_once(new_gateway: Callable[..., Gateway]):
    """Bodies beyond max_in_flight_bytes get 503, and their bytes are released."""
    gateway = new_gateway(max_in_flight_bytes=100_000).start()
    with Wire(gateway) as wire:
        wire.send_head("content-length: 90000")
        wire.send(b" " * 80_000)
        until(lambda: gauge(gateway, "embedway_in_flight_bytes") == 80_000)
        assert_overloaded(gateway.embed(input="a" * 30_000))
        assert gateway.embed(input="hello").status_code == 200
    until(lambda: idle(gateway))
    assert gateway.embed(input="a" * 30_000, truncate="end").status_code == 200


def test_a_request_that_takes_too_long(new_gateway: Callable[..., Gateway]):
    """After request_timeout_s a request gets 503 and its queued work is dropped."""
    gateway = new_gateway(precision="auto", request_timeout_s=1).start()
    with gateway.client() as client:
        assert_overloaded(client.post("/v1/embeddings", json={"input": TEXTS_300K}, timeout=60))
    until(lambda: idle(gateway))
    until(lambda: gateway.embed(input="hello").status_code == 200)
    assert [each["requests"] for each in gateway.usage()] == [1]


def test_too_much_work_waits(new_gateway: Callable[..., Gateway]):
    """Requests get 503 while the model's queue is full, and are served once it has room."""
    gateway = new_gateway().start()
    with Wire(gateway) as first, Wire(gateway) as second:
        for wire in (first, second):
            wire.send_request(body(input=TEXTS_300K))
        until(lambda: gauge(gateway, "embedway_queue_tokens") > 400_000)
        refused = gateway.embed(input=TEXTS_300K)
        assert_overloaded(refused)
        assert "waiting" in refused.json()["error"]["message"]
        assert gateway.embed(input="hello").status_code == 200
    until(lambda: idle(gateway))
    assert gateway.embed(input="hello").status_code == 200
    # A request refused because the model is busy has no usage record.
    with contextlib.closing(sqlite3.connect(gateway.folder / "data" / "embedway.db")) as database:
        statuses = {row[0] for row in database.execute("SELECT status FROM usage")}
    assert 200 in statuses
    assert 503 not in statuses


def test_a_short_request_is_not_behind_a_long_one(new_gateway: Callable[..., Gateway]):
    """A short request is answered long before a running one of 300,000 tokens."""
    gateway = new_gateway(precision="auto", request_timeout_s=100).start()
    with Wire(gateway) as wire:
        wire.send_request(body(input=TEXTS_300K))
        until(lambda: gauge(gateway, "embedway_queue_tokens") > 200_000)
        assert gateway.embed(input="hello").status_code == 200
        assert gauge(gateway, "embedway_queue_tokens") > 100_000


def test_overload_is_bounded_and_passes(new_gateway: Callable[..., Gateway]):
    """Ten times the load in large bodies stays within bounds and leaves nothing behind."""
    gateway = new_gateway(precision="auto", max_in_flight=6, request_timeout_s=5).start()
    text = "\N{GRINNING FACE}" + "word " * 12_000  # four bytes a character once decoded
    large = [{"input": [text] * count, "truncate": "end"} for count in (60, 1, 20)]

    with load(gateway, lambda number: large[number % 3], connections=60) as seen:
        until(lambda: len(seen.refused) > 150)
    assert set(seen.refused) == {503}
    assert not seen.broken
    until(lambda: idle(gateway))
    assert memory(gateway, "VmHWM") < MOST_RSS
    assert gateway.embed(input="hello").status_code == 200


def test_answers_nobody_reads_are_given_up(new_gateway: Callable[..., Gateway], upstream: Upstream):
    """Clients that never read their large answers hold memory only for a while."""
    gateway = new_gateway(body_timeout_s=1)
    give_large_answers(gateway.folder, upstream)
    gateway.start()
    held = []
    with contextlib.ExitStack() as wires:
        for _ in range(3):  # in the first round, memory grows to what such requests need
            for _ in range(10):
                wire = wires.enter_context(Wire(gateway, receive_buffer=4096))
                wire.send_request(LARGE)
            until(lambda: len(upstream.calls) == len(held) * 10 + 10)
            until(lambda: idle(gateway))
            held.append(memory(gateway))
        assert len(upstream.calls) == 30
        # All connections are still open; answers kept for them would be 180 MB.
        assert held[2] - held[0] < 140_000_000
        assert gateway.embed(input="hello").status_code == 200


def test_a_body_that_unfolds_is_bounded(new_gateway: Callable[..., Gateway]):
    """Small bodies that take much memory when decoded stay bounded."""
    gateway = new_gateway(precision="auto").start()
    bodies = [
        b'{"input":[' + b"[]," * 5_000_000 + b"[]]}",
        b'{"input":[' + b"999," * 3_900_000 + b"9]}",
        b'{"input":"a","x":[' + b"{}," * 5_000_000 + b"{}]}",
        body(input=["! " * 45_000] * 170),
    ]
    statuses = []

    def ask(content: bytes) -> None:
        with gateway.client() as client:
            statuses.append(client.post("/v1/embeddings", content=content, timeout=110).status_code)

    threads = [threading.Thread(target=ask, args=(content,)) for content in bodies * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(statuses) <= {400, 503}
    until(lambda: idle(gateway))
    assert memory(gateway, "VmHWM") < 1.5 * MOST_RSS
    assert gateway.embed(input="hello").status_code == 200
