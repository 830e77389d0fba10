"""Puts a server under load: each connection sends its next request after an answer.

It parses nothing but the status and the length of answers, so that on a small machine most of the
CPU time goes to the server.
"""

import asyncio
import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from benchmarks.turns import quantile_ms


@dataclass
class Load:
    """The result of a run: the latencies of answers with 200.

    `errors` counts other answers, and connections that the server closed.
    """

    seconds: float
    latencies_s: list[float]
    errors: int

    @property
    def requests_per_s(self) -> float:
        """The answers with 200 per second."""
        return len(self.latencies_s) / self.seconds

    def latency_ms(self, quantile: float) -> float:
        """Return a quantile of the latencies, in milliseconds."""
        return quantile_ms(self.latencies_s, quantile)


class Connection(asyncio.Protocol):
    """A connection that sends one request again and again, each time after the answer."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._received = bytearray()
        self.sent_s = 0.0
        """When the last request was sent, by `time.perf_counter`."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        self.transport = transport
        self.send()

    def send(self) -> None:
        """Send the request."""
        self.sent_s = time.perf_counter()
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Read on until the whole answer is there."""
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._received[:end]).lower()
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(self._received) < end + 4 + length:
            return
        body = self._received[end + 4 :]
        self._received = bytearray()
        self.answered(head, body)

    def answered(self, head: bytes, body: bytearray) -> None:
        """Take an answer, its head in lower case, and send the next request or close."""
        raise NotImplementedError


class _MeasuredConnection(Connection):
    """Sends other requests in turn, which all connections share."""

    def __init__(self, requests: Iterator[bytes], deadline_s: float, load: Load) -> None:
        super().__init__(next(requests))
        self._requests = requests
        self._deadline_s = deadline_s
        self._load = load
        self.done = asyncio.get_running_loop().create_future()

    def answered(self, head: bytes, body: bytearray) -> None:  # noqa: ARG002
        now_s = time.perf_counter()
        if head.startswith(b"http/1.1 200"):
            self._load.latencies_s.append(now_s - self.sent_s)
        else:
            self._load.errors += 1
        if now_s < self._deadline_s:
            self._request = next(self._requests)
            self.send()
        else:
            self.transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if time.perf_counter() < self._deadline_s:
            self._load.errors += 1
        if not self.done.done():
            self.done.set_result(error)


def request_bytes(url: str, body: bytes, *, key: str) -> bytes:
    """Return a whole request that posts `body`."""
    parts = urlsplit(url)
    return (
        f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body


async def load(
    url: str, bodies: Sequence[bytes], *, key: str, connections: int, seconds: float
) -> Load:
    """Send `bodies`, again and again, over `connections` connections for `seconds`."""
    parts = urlsplit(url)
    requests = itertools.cycle([request_bytes(url, each, key=key) for each in bodies])
    seen = Load(seconds, [], 0)
    deadline_s = time.perf_counter() + seconds
    loop = asyncio.get_running_loop()
    running = [
        (
            await loop.create_connection(
                lambda: _MeasuredConnection(requests, deadline_s, seen), parts.hostname, parts.port
            )
        )[1].done
        for _ in range(connections)
    ]
    started_s = time.perf_counter()
    await asyncio.gather(*running)
    seen.seconds = time.perf_counter() - started_s
    return seen
