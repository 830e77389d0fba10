"""Stopping fails nobody: the signal, the notice, the last answers, the exit status."""

import contextlib
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from conftest import EMBEDWAY, Gateway, clean_environment, free_port
from raw_http import Wire, body, gauge, load, until
from servers import Postgres
from test_ledger import ask, rows

BOTH = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
LARGE = ["the quick brown fox"] * 2048


@BOTH
def test_nothing_fails_under_load(new_gateway: Callable[..., Gateway], number: signal.Signals):
    """Clients under full load see whole answers to the last; all of them are in the ledger."""
    gateway = new_gateway(drain_s=1).start()
    with load(gateway, ask) as seen:
        until(lambda: len(seen.answers) > 50)
        seen.is_stopping = True
        gateway.signal(number)
        assert gateway.wait() == 0
    assert (seen.broken, seen.refused) == ([], [])
    recorded = [row["id"] for row in rows(gateway) if row["status"] == 200]
    assert sorted(recorded) == sorted(answer["id"] for _, answer in seen.answers)
    assert "Traceback" not in gateway.log.read_text()


def test_readyz_says_no_while_requests_are_served(new_gateway: Callable[..., Gateway]):
    """From SIGTERM on /readyz is 503 while the port still serves, and answers close connections."""
    gateway = new_gateway(drain_s=3).start()
    with gateway.client() as client:
        assert "connection" not in client.post("/v1/embeddings", json={"input": "a"}).headers
        gateway.signal(signal.SIGTERM)
        until(lambda: client.get("/readyz").status_code == 503)
        last = client.post("/v1/embeddings", json={"input": "a"})
        assert (last.status_code, last.headers["connection"]) == (200, "close")
        assert httpx.get(f"{gateway.url}/livez").status_code == 200
    assert gateway.wait() == 0


@BOTH
def test_large_request_gets_its_answer(new_gateway: Callable[..., Gateway], number: signal.Signals):
    """A request of 2048 texts that runs when the signal comes is answered in full."""
    gateway = new_gateway(drain_s=0).start()
    replies: list[httpx.Response] = []
    asking = threading.Thread(target=lambda: replies.append(gateway.embed(input=LARGE)))
    asking.start()
    until(lambda: gauge(gateway, "embedway_queue_tokens") > 0)
    gateway.signal(number)
    assert gateway.wait() == 0
    asking.join(120)
    assert [reply.status_code for reply in replies] == [200]
    assert len(replies[0].json()["data"]) == len(LARGE)


def test_body_on_its_way_is_still_taken(new_gateway: Callable[..., Gateway]):
    """A request whose body arrives after the signal counts as in flight and is answered."""
    gateway = new_gateway(drain_s=0).start()
    content = body(input="hello")
    with Wire(gateway) as wire:
        wire.send_head(f"content-length: {len(content)}")
        until(lambda: gauge(gateway, "embedway_requests_in_flight") == 1)
        gateway.signal(signal.SIGTERM)
        until(lambda: refuses(gateway))
        wire.send(content)
        reply = wire.reply()
        assert reply is not None and reply.status_code == 200
        assert wire.closed()
    assert gateway.wait() == 0


def test_idle_connections_do_not_hold_it_up(new_gateway: Callable[..., Gateway]):
    """Open connections that ask nothing are closed, not waited for."""
    gateway = new_gateway(drain_s=0, header_timeout_s=600).start()
    with Wire(gateway) as silent, Wire(gateway) as used:
        used.send_request(body(input="hello"))
        reply = used.reply()
        assert reply is not None and reply.status_code == 200
        gateway.signal(signal.SIGTERM)
        assert gateway.wait() == 0
        assert silent.closed() and used.closed()


def test_second_signal_ends_it_at_once(new_gateway: Callable[..., Gateway]):
    """A second signal does not wait for anything."""
    gateway = new_gateway(drain_s=600).start()
    gateway.signal(signal.SIGTERM)
    until(lambda: not gateway.ready())
    gateway.signal(signal.SIGTERM)
    assert gateway.wait() == 128 + signal.SIGTERM


def test_a_database_that_stands_still_does_not_hold_it_up(
    minilm: object, tmp_path: Path, postgres: Postgres
):
    """While Postgres says nothing, SIGTERM ends the process after a while, and says so."""
    gateway = Gateway(tmp_path, database_url=postgres.url, pepper="5a" * 32, drain_s=0).start()
    try:
        # Its count is written later, so there is something left to write at the end.
        assert gateway.embed(input="").status_code == 400
        postgres.pause()
        gateway.signal(signal.SIGTERM)
        assert gateway.wait() == 1
        assert "ended without closing the database" in gateway.log.read_text()
    finally:
        postgres.resume()
        gateway.kill()


def starting(gateway: Gateway) -> subprocess.Popen:
    with gateway.log.open("wb") as log:
        return subprocess.Popen(
            [EMBEDWAY, "serve"], env=clean_environment() | gateway.env, cwd=gateway.folder,
            stdout=log, stderr=log,
        )  # fmt: skip


@pytest.mark.parametrize("after_s", [0.1, 0.5, 1, 1.5])
def test_sigterm_during_start_up(new_gateway: Callable[..., Gateway], after_s: float):
    """SIGTERM before it is ready ends it without a traceback; the data folder stays usable."""
    gateway = new_gateway()
    process = starting(gateway)
    with contextlib.suppress(subprocess.TimeoutExpired):  # a moment of it, whichever it is
        process.wait(after_s)
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) in {0, -signal.SIGTERM}
    assert "Traceback" not in gateway.log.read_text()
    assert gateway.start().embed(input="hello").status_code == 200


def test_interrupt_during_start_up(new_gateway: Callable[..., Gateway]):
    """Ctrl-C while the model is loaded ends it without a traceback."""
    gateway = new_gateway()
    process = starting(gateway)
    maps = Path(f"/proc/{process.pid}/maps")
    until(lambda: "model.safetensors" in maps.read_text() or "libopenvino" in maps.read_text())
    process.send_signal(signal.SIGINT)
    assert process.wait(120) in {0, -signal.SIGINT}
    assert "Traceback" not in gateway.log.read_text()


def test_uvicorn_serves_and_stops(minilm: object, new_gateway: Callable[..., Gateway]):
    """`uvicorn --factory embedway.app:create` answers like ours and ends cleanly under load."""
    gateway = new_gateway()
    gateway.port = free_port()
    gateway.url = f"http://127.0.0.1:{gateway.port}"
    gateway.process = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "--factory", "embedway.app:create",
         "--port", str(gateway.port)],
        env=clean_environment() | gateway.env, cwd=gateway.folder,
        stdout=(log := gateway.log.open("wb")), stderr=log,
    )  # fmt: skip
    log.close()
    until(gateway.ready)
    with load(gateway, ask, connections=4) as seen:
        until(lambda: len(seen.answers) > 20)
        assert httpx.get(f"{gateway.url}/v1/nothing").json()["error"]["type"]
        gateway.signal(signal.SIGTERM)
        status = gateway.wait()
    assert status in {0, -signal.SIGTERM}
    assert seen.refused == []
    recorded = {row["id"] for row in rows(gateway)}
    assert {answer["id"] for _, answer in seen.answers} <= recorded
    logged = gateway.log.read_text()
    assert '"event":"answered"' in logged
    assert "Traceback" not in logged


def refuses(gateway: Gateway) -> bool:
    """Whether the port takes no new connections."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", gateway.port)) != 0


def test_stopped_and_continued(new_gateway: Callable[..., Gateway]):
    """A process that was halted and goes on serves as before: no clock of ours runs wild."""
    gateway = new_gateway(header_timeout_s=60).start()
    with gateway.client() as client:
        assert client.post("/v1/embeddings", json={"input": "a"}).status_code == 200
        gateway.signal(signal.SIGSTOP)
        assert gateway.process is not None
        status = Path(f"/proc/{gateway.process.pid}/status")
        until(lambda: "State:\tT" in status.read_text())
        time.sleep(1)  # what is tested is that time passes
        gateway.signal(signal.SIGCONT)
        assert client.post("/v1/embeddings", json={"input": "a"}).status_code == 200
    until(gateway.ready)
