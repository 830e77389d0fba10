"""Sends requests to a gateway from a thread of its own, and keeps what each client saw."""

import asyncio
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple, Self
from urllib.parse import urlsplit

import uvloop
from benchmarks.load import Connection, request_bytes

BODY = b'{"model":"openai:text-embedding-3-small","input":"Hello world","encoding_format":"base64"}'
NO_ANSWER = 0
"""The status of a request that got no complete answer."""
NO_CONNECTION = -1
"""The status of a request that could not be sent."""
RECONNECT_S = 0.02
"""How long a client waits before it connects again, in seconds."""
NOT_ANSWERED = {NO_ANSWER: "no answer", NO_CONNECTION: "no connection"}
MOST_CONNECTIONS = 4_000
"""The most connections of clients that send at a fixed rate."""
END_S = 60
"""The longest wait for the last answers, in seconds."""
_ID = re.compile(rb'"id":"(\w+)"')
_CODE = re.compile(rb'"code":"(\w+)"')


class Answer(NamedTuple):
    """What became of one request."""

    sent_s: float
    """When it was sent, by `time.perf_counter`."""
    seconds: float
    """The time to its answer."""
    status: int
    """The status of the answer, `NO_ANSWER` or `NO_CONNECTION`."""
    id: str = ""
    """The id of a 200, which its usage record has too; the `code` of an error."""
    wait_s: float | None = None
    """The wait that `Retry-After` asks for."""
    may_retry: bool = True
    """Whether `x-should-retry` does not forbid it."""


class Clients:
    """Clients under way until the block ends.

    Each of `connections` clients sends its next request after its answer; with `is_patient`, only
    after the time that `Retry-After` asks for. Or, with `per_s`, requests are sent at that rate,
    however long answers take, over as many connections as that needs. None is ever sent again.
    """

    def __init__(
        self,
        url: str,
        key: str,
        *,
        connections: int = 0,
        per_s: float = 0,
        is_patient: bool = False,
    ) -> None:
        self.answers: list[Answer] = []
        self.is_patient = is_patient
        self.is_stopping = False
        self.idle: list[_Client] = []
        self._address = urlsplit(url)
        self._request = request_bytes(f"{url}/v1/embeddings", BODY, key=key)
        self._connections = connections
        self._per_s = per_s
        self._open = 0
        self.in_flight = 0
        self._thread = threading.Thread(target=lambda: uvloop.run(self._run()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.is_stopping = True
        self._thread.join(END_S + 5)

    def statuses(self) -> Counter[int]:
        """Count the answers by status."""
        return Counter(each.status for each in self.answers)

    def failures(self) -> str:
        """Return how many requests got no 200, by what they got, in words."""
        kinds = Counter(
            NOT_ANSWERED.get(each.status) or f"{each.status} {each.id}".strip()
            for each in self.answers
            if each.status != 200
        )
        return ", ".join(f"{count} x {kind}" for kind, count in kinds.most_common())

    def ids(self) -> list[str]:
        """Return the ids of all answers with 200."""
        return [each.id for each in self.answers if each.status == 200]

    def latency_ms(self, quantile: float, status: int | None = 200) -> float:
        """Return a quantile of the times to answers of a status; to all others if it is None."""
        times = sorted(
            each.seconds
            for each in self.answers
            if (each.status == status if status else each.status != 200)
        )
        return times[min(len(times) - 1, int(quantile * len(times)))] * 1000 if times else 0.0

    def rate_per_s(self, status: int = 200) -> float:
        """Return how many answers of a status came per second."""
        ends = [each.sent_s + each.seconds for each in self.answers]
        begin = min(each.sent_s for each in self.answers)
        return self.statuses()[status] / (max(ends) - begin)

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        for _ in range(self._connections):
            self.connect()
        next_s = self._loop.time()
        while not self.is_stopping:
            while self._per_s and next_s <= self._loop.time():
                self._send_one()
                next_s += 1 / self._per_s
            await asyncio.sleep(min(0.01, 1 / self._per_s) if self._per_s else 0.01)
        deadline_s = self._loop.time() + END_S
        while self.in_flight and self._loop.time() < deadline_s:
            await asyncio.sleep(0.01)

    def _send_one(self) -> None:
        if self.idle:
            self.idle.pop().send()
        elif self._open < MOST_CONNECTIONS:
            self.connect()

    def connect(self) -> None:
        """Open a connection, which then sends its first request."""
        self._open += 1
        self._loop.create_task(self._connect())

    async def _connect(self) -> None:
        began_s = time.perf_counter()
        try:
            await self._loop.create_connection(
                lambda: _Client(self._request, self), self._address.hostname, self._address.port
            )
        except OSError:
            self.answers.append(Answer(began_s, time.perf_counter() - began_s, NO_CONNECTION))
            self.lost()

    def lost(self) -> None:
        """Take note of a connection that was closed, and open another where that is wanted."""
        self._open -= 1
        if self._connections and not self.is_stopping:
            self._loop.call_later(RECONNECT_S, self._reconnect)

    def _reconnect(self) -> None:
        if not self.is_stopping:
            self.connect()

    def next(self, client: "_Client", wait_s: float) -> None:
        """Let a client that has its answer go on."""
        if not self._connections:
            self.idle.append(client)
        elif wait_s:
            self._loop.call_later(wait_s, client.send)
        else:
            client.send()


class _Client(Connection):
    """One connection of `Clients`."""

    def __init__(self, request: bytes, clients: Clients) -> None:
        super().__init__(request)
        self._clients = clients
        self._waits = False
        """Whether a request waits for its answer."""

    def send(self) -> None:
        if self._clients.is_stopping or self.transport.is_closing():
            self.transport.close()
            return
        self._waits = True
        self._clients.in_flight += 1
        super().send()

    def answered(self, head: bytes, body: bytearray) -> None:
        self._waits = False
        self._clients.in_flight -= 1
        status = int(head[9:12])
        found = (_ID if status == 200 else _CODE).search(body)
        wait = _header(head, b"retry-after-ms")
        answer = Answer(
            self.sent_s,
            time.perf_counter() - self.sent_s,
            status,
            found[1].decode() if found else "",
            float(wait) / 1000 if wait else None,
            _header(head, b"x-should-retry") != b"false",
        )
        self._clients.answers.append(answer)
        if _header(head, b"connection") == b"close":
            self.transport.close()
        else:
            is_patient = self._clients.is_patient
            self._clients.next(self, (is_patient and answer.wait_s) or 0.0)

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002
        if self._waits:
            self._clients.in_flight -= 1
            seconds = time.perf_counter() - self.sent_s
            self._clients.answers.append(Answer(self.sent_s, seconds, NO_ANSWER))
        if self in self._clients.idle:
            self._clients.idle.remove(self)
        self._clients.lost()


def _header(head: bytes, name: bytes) -> bytes:
    return head.partition(b"\r\n" + name + b": ")[2].partition(b"\r\n")[0]


def wait_until(condition: Callable[[], object], what: str, *, within_s: float = 120) -> float:
    """Poll until `condition` holds; return how long that took, in seconds.

    Raises:
        TimeoutError: It does not hold in time; the message says that `what` did not happen.
    """
    began_s = time.monotonic()
    while not condition():
        if time.monotonic() - began_s > within_s:
            raise TimeoutError(f"After {within_s:g} s: {what}")
        time.sleep(0.05)
    return time.monotonic() - began_s
