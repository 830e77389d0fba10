"""Puts a server under load: each connection sends its next request after an answer.

It parses nothing but the status and the length of answers, so that on a small machine most of the
CPU time goes to the server.
"""

import asyncio
import socket
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass
class Load:
    """The result of a run: the latencies of answers with 200, and the number of others."""

    seconds: float
    latencies_s: list[float]
    errors: int

    @property
    def requests_per_s(self) -> float:
        """The answers with 200 per second."""
        return len(self.latencies_s) / self.seconds

    def latency_ms(self, quantile: float) -> float:
        """Return a quantile of the latencies, in milliseconds."""
        ordered = sorted(self.latencies_s)
        return ordered[min(len(ordered) - 1, int(quantile * len(ordered)))] * 1000


class _Connection(asyncio.Protocol):
    def __init__(self, request: bytes, deadline_s: float, load: Load) -> None:
        self._request = request
        self._deadline_s = deadline_s
        self._load = load
        self._received = bytearray()
        self._sent_s = 0.0
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._received[:end]).lower()
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(self._received) < end + 4 + length:
            return
        now_s = time.perf_counter()
        if head.startswith(b"http/1.1 200"):
            self._load.latencies_s.append(now_s - self._sent_s)
        else:
            self._load.errors += 1
        self._received.clear()
        if now_s < self._deadline_s:
            self._send()
        else:
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(error)

    def _send(self) -> None:
        self._sent_s = time.perf_counter()
        self._transport.write(self._request)


async def load(url: str, body: bytes, *, key: str, connections: int, seconds: float) -> Load:
    """Send `body` over `connections` connections for `seconds`."""
    parts = urlsplit(url)
    request = (
        f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body
    seen = Load(seconds, [], 0)
    deadline_s = time.perf_counter() + seconds
    loop = asyncio.get_running_loop()
    running = [
        (
            await loop.create_connection(
                lambda: _Connection(request, deadline_s, seen), parts.hostname, parts.port
            )
        )[1].done
        for _ in range(connections)
    ]
    started_s = time.perf_counter()
    await asyncio.gather(*running)
    seen.seconds = time.perf_counter() - started_s
    return seen


def median(values: list[float]) -> float:
    """Return the median, the figure to quote on a noisy machine."""
    return statistics.median(values)


def free_port() -> int:
    """Return a free port of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until_listening(process: subprocess.Popen, port: int) -> None:
    """Wait until the process listens on `port`; exit if it ends instead."""
    while process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    sys.exit(f"A server has ended with status {process.returncode} instead of listening.")
