"""Holds thousands of connections that ask nothing."""

import contextlib
import resource
import selectors
import socket
import threading
import time
from collections.abc import Sequence
from typing import Self

from chaos.processes.check import Check, at_most, none_of
from chaos.processes.clients import Clients
from chaos.processes.stage import Skipped, Stage, memory_bytes

IDLE = 2_000
SLOW = 100
"""How many more send the head of a request a byte at a time."""
DRIP_S = 0.2
PER_S = 40
MEASURE_S = 8
MOST_KIB = 16
"""The most memory for each such connection, in KiB."""
TIMES = 2
"""How many times longer the slowest requests of others may take."""
SLACK_S = 2


def run(stage: Stage) -> Sequence[Check]:
    """Hold 2,000 idle connections and 100 that send their headers slowly, beside a usual client."""
    measure_s = 1 if stage.is_short else MEASURE_S
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = IDLE + SLOW + 200
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise Skipped(f"this user may open only {hard} files: raise it with `ulimit -Hn {needed}`")
    if soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    gateway = stage.busy()
    timeout_s = float(gateway.env["EMBEDWAY_HEADER_TIMEOUT_S"])
    key = gateway.new_key()
    with Clients(gateway.url, key.secret, per_s=PER_S) as alone:
        stage.wait(measure_s, "a usual client alone")
    before = memory_bytes(gateway)
    with (
        _Crowd(gateway.port) as crowd,
        Clients(gateway.url, key.secret, per_s=PER_S) as beside,
    ):
        stage.wait(measure_s, f"{IDLE + SLOW:,} connections that ask nothing")
        most = memory_bytes(gateway)
        stage.say("waiting until they are closed")
        longest_s = crowd.wait_until_closed(timeout_s + 30)
    return [
        none_of("connections that the gateway did not take", crowd.refused, out_of=IDLE + SLOW),
        none_of(
            "failed requests of the usual client",
            len(beside.answers) - len(beside.ids()),
            out_of=len(beside.answers),
            found=beside.failures(),
        ),
        at_most(
            "slowest 1% of its answers, in times of those before",
            TIMES,
            beside.latency_ms(0.99) / alone.latency_ms(0.99),
            " times",
            is_timing=True,
        ),
        at_most(
            "memory for each connection", MOST_KIB, (most - before) / (IDLE + SLOW) / 1024, " KiB"
        ),
        none_of("connections that stay open", crowd.open, out_of=IDLE + SLOW),
        at_most(
            "time until closed, beyond `header_timeout_s`",
            SLACK_S,
            longest_s - timeout_s,
            " s",
            is_timing=True,
        ),
    ]


class _Crowd:
    """Connections that ask nothing, watched by a thread until the gateway closes them."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.refused = 0
        self.open = 0
        self._longest_s = 0.0
        self._selector = selectors.DefaultSelector()
        self._slow: list[socket.socket] = []
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        for number in range(IDLE + SLOW):
            try:
                link = socket.create_connection(("127.0.0.1", self._port), timeout=10)
            except OSError:
                self.refused += 1
                continue
            link.settimeout(0)
            self._selector.register(link, selectors.EVENT_READ, time.monotonic())
            self.open += 1
            if number >= IDLE:
                link.send(b"POST /v1/embeddings HTTP/1.1\r\nhost: test\r\nx-slow: ")
                self._slow.append(link)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()
        for each in list(self._selector.get_map().values()):
            each.fileobj.close()
        self._selector.close()

    def wait_until_closed(self, within_s: float) -> float:
        """Wait until all are closed; return the longest that one was open, in seconds."""
        self._thread.join(within_s)
        return self._longest_s

    def _watch(self) -> None:
        drip_s = time.monotonic()
        while self.open and not self._is_over.is_set():
            for key, _ in self._selector.select(DRIP_S):
                self._read(key)
            if time.monotonic() >= drip_s:
                drip_s = time.monotonic() + DRIP_S
                for link in self._slow:
                    with contextlib.suppress(OSError):
                        link.send(b"a")

    def _read(self, key: selectors.SelectorKey) -> None:
        link = key.fileobj
        with contextlib.suppress(BlockingIOError):
            try:
                if link.recv(4096):
                    return
            except ConnectionError:
                pass
            self._longest_s = max(self._longest_s, time.monotonic() - key.data)
            self._selector.unregister(link)
            if link in self._slow:
                self._slow.remove(link)
            link.close()
            self.open -= 1
