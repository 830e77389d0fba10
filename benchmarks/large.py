"""Measures large requests and answers, and how long small requests wait beside them.

    python -m benchmarks.large [--seconds 5] [--case NAME]

A provider in a process of its own holds its replies in memory. For each case, one client sends the
large request again and again: first alone, then while a second client sends a small request every
50 ms and a third asks for `/livez` every 50 ms. Their latencies count from when they were due. All
of it shares this machine.
"""

import argparse
import asyncio
import base64
import contextlib
import http.client
import json
import os
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson
import uvloop

from benchmarks.passthrough import start_embedway
from benchmarks.processes import System, cpu_s, free_port, peak_mib, resident_mib, running

SMALL = {"model": "openai:base64-1x1536", "input": "Hello world", "encoding_format": "base64"}
EVERY_S = 0.05
WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
HOSTILE: dict[str, Callable[[], bytes]] = {
    "arrays": lambda: b'{"data":[' + b"[]," * 5_500_000 + b"[]]}",
    "objects": lambda: b'{"data":[' + b"{}," * 5_500_000 + b"{}]}",
    "depth": lambda: b'{"data":' + b"[" * 16_000_000,
}


@dataclass(frozen=True)
class Case:
    """A large request."""

    name: str
    model: str
    """The provider's reply: `floats` or `base64` and its shape, or the name of a hostile body."""
    items: int
    encoding_format: str = "float"
    words: int = 2

    def body(self) -> bytes:
        """Return the request."""
        texts = [
            " ".join(WORDS[(item + word) % 10] for word in range(self.words))
            for item in range(self.items)
        ]
        model = f"openai:{self.model}"
        return json.dumps(
            {"model": model, "input": texts, "encoding_format": self.encoding_format}
        ).encode()


CASES = (
    Case("2048 x 1536, base64 to base64", "base64-2048x1536", 2048, "base64"),
    Case("2048 x 1536, base64 to float", "base64-2048x1536", 2048),
    Case("2048 x 1536, float to base64", "floats-2048x1536", 2048, "base64"),
    Case("2048 x 1536, float to float", "floats-2048x1536", 2048),
    Case("100 x 3072, base64 to float", "base64-100x3072", 100),
    Case("100 x 3072, float to float", "floats-100x3072", 100),
    Case("256 x 4096, float to float", "floats-256x4096", 256),
    Case("2048 texts of 140 tokens", "base64-2048x256", 2048, "base64", 140),
    *(Case(f"16 MB of {name} from the provider", name, 2048) for name in HOSTILE),
)


def reply(model: str, count: int | None = None) -> bytes:
    """Return the provider's reply for a model of this name, to `count` items."""
    if model in HOSTILE:
        return HOSTILE[model]()
    kind, items, width = model.replace("x", "-").split("-")
    shape = (count or int(items), int(width))
    vectors = np.random.default_rng(1).standard_normal(shape, np.float32)
    vectors /= np.linalg.norm(vectors, axis=1)[:, None]
    return encode(vectors, kind)


def encode(vectors: np.ndarray, kind: str) -> bytes:
    """Encode an answer with nothing but orjson and base64."""
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": base64.b64encode(row).decode() if kind == "base64" else row,
        }
        for index, row in enumerate(vectors)
    ]
    usage = {"prompt_tokens": len(data), "total_tokens": len(data)}
    body = {"object": "list", "data": data, "model": "m", "usage": usage}
    return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)


def decode(body: bytes) -> np.ndarray:
    """Decode an answer with nothing but orjson and base64."""
    values = [each["embedding"] for each in orjson.loads(body)["data"]]
    if isinstance(values[0], str):
        return np.array([np.frombuffer(base64.b64decode(value), "<f4") for value in values])
    return np.array(values, np.float32)


def alone_s(case: Case, body: bytes, answer: bytes) -> float:
    """Return the CPU time of the formats alone, for the request and for both answers, at best."""
    if case.model in HOSTILE:
        return 0.0
    best = float("inf")
    for _ in range(3):
        started_s = time.process_time()
        orjson.dumps(orjson.loads(body))
        encode(decode(answer), case.encoding_format)
        best = min(best, time.process_time() - started_s)
    return best


class Provider(asyncio.Protocol):
    """Answers each request with the reply of its model."""

    replies: dict[tuple[str, int], bytes] = {}  # noqa: RUF012  # shared on purpose

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for a request."""
        self._transport = transport
        self._received = bytearray()

    def data_received(self, data: bytes) -> None:
        """Answer once the whole request is there."""
        self._received += data
        head, end, body = bytes(self._received).partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
        if not end or len(body) < length:
            return
        self._received.clear()
        request = json.loads(body)
        texts = request["input"]
        asked = request["model"], 1 if isinstance(texts, str) else len(texts)
        answer = self.replies.get(asked) or self.replies.setdefault(asked, reply(*asked))
        start = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        self._transport.write(start % len(answer))
        self._transport.write(answer)


async def provide(port: int) -> None:
    """Serve as the provider."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Provider, "127.0.0.1", port)
    await server.serve_forever()


class Client:
    """One kept connection."""

    def __init__(self, port: int, key: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        self._buffer = bytearray(2**18)

    def post(self, body: bytes) -> int:
        """Send a request, and return the status of the answer once it is read."""
        self._connection.request("POST", "/v1/embeddings", body, self._headers)
        with self._connection.getresponse() as response:
            while response.readinto(self._buffer):
                pass
            return response.status

    def get(self, path: str) -> int:
        """Ask for a page, and return its status."""
        self._connection.request("GET", path)
        with self._connection.getresponse() as response:
            response.read()
            return response.status


@contextlib.contextmanager
def steadily(send: Callable[[], object], every_s: float) -> Iterator[list[float]]:
    """Call `send` at a steady rate in a thread; yield the growing list of latencies in ms."""
    latencies: list[float] = []
    ended = threading.Event()

    def run() -> None:
        due_s = time.perf_counter()
        while not ended.is_set():
            due_s += every_s
            time.sleep(max(0.0, due_s - time.perf_counter()))
            send()
            latencies.append((time.perf_counter() - due_s) * 1000)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield latencies
    finally:
        ended.set()
        thread.join()


def repeat(
    port: int, key: str, body: bytes, seconds: float, statuses: tuple[int, ...] = (200,)
) -> list[float]:
    """Post `body` for a while, twice at least; return the seconds that each answer took."""
    client = Client(port, key)
    taken: list[float] = []
    ends_s = time.perf_counter() + seconds
    while time.perf_counter() < ends_s or len(taken) < 2:
        started_s = time.perf_counter()
        got = client.post(body)
        taken.append(time.perf_counter() - started_s)
        if got not in statuses:
            raise RuntimeError(f"The answer has status {got}.")
    return taken


def quantile(latencies: list[float], share: float) -> float:
    """Return a quantile."""
    return sorted(latencies)[min(len(latencies) - 1, int(share * len(latencies)))]


def measure(
    case: Case, gateway: System, provider_port: int, pool: ProcessPoolExecutor, seconds: float
) -> str:
    """Measure a case, and return its row."""
    statuses: tuple[int, ...] = (200,)
    if case.model in HOSTILE:
        seconds, statuses = 0, (502, 503)  # after a few such replies the provider is not asked
    body, answer = case.body(), reply(case.model)
    upstream = json.dumps({"model": case.model, "input": ["a"] * case.items}).encode()
    Client(provider_port, "").post(upstream)  # builds the reply
    upstream_s = statistics.median(repeat(provider_port, "", upstream, seconds / 4))
    formats_s = alone_s(case, body, answer)
    pid = gateway.process.pid
    large = (gateway.port, gateway.key, body)
    repeat(*large, 0, statuses)
    before_mib = resident_mib(pid)
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak of memory begins anew
    cpu_before_s = cpu_s(pid)
    taken = repeat(*large, seconds, statuses)
    used_s = (cpu_s(pid) - cpu_before_s) / len(taken)
    memory = peak_mib(pid) - before_mib
    request = json.dumps(SMALL).encode()
    small, ping = Client(gateway.port, gateway.key), Client(gateway.port, "")
    with (
        steadily(lambda: small.post(request), EVERY_S) as waits,
        steadily(lambda: ping.get("/livez"), EVERY_S) as lags,
    ):
        # In a process of its own, because it would hold up the other clients.
        pool.submit(repeat, *large, 2 * seconds, statuses).result()
    alone = statistics.median(taken)
    floor_s = formats_s + upstream_s
    ratio, cpu_ratio = (
        (f"{alone / floor_s:.2f}", f"{used_s / formats_s:.2f}") if formats_s else ("", "")
    )
    return (
        f"| {case.name} | {alone * 1000:.0f} | {used_s * 1000:.0f} | {formats_s * 1000:.0f} | "
        f"{upstream_s * 1000:.0f} | {ratio} | {cpu_ratio} | {quantile(waits, 0.5):.1f} | "
        f"{quantile(waits, 0.99):.1f} | {max(waits):.1f} | {max(lags):.1f} | {memory:.0f} |"
    )


def main() -> None:
    """Run the command line."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=float, default=5, help="per case and step")
    options.add_argument("--case", default="", help="only cases whose name has these words")
    options.add_argument("--provide", type=int, metavar="PORT", help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.provide:
        uvloop.run(provide(chosen.provide))  # asyncio moves all that is left after each write
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the servers are stopped too
    os.environ |= dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1")
    with ExitStack() as stack, contextlib.suppress(KeyboardInterrupt):
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        port = free_port()
        pool = stack.enter_context(ProcessPoolExecutor(1))
        command = [sys.executable, "-m", "benchmarks.large", "--provide", str(port)]
        stack.enter_context(running(command, port))
        settings = {
            "EMBEDWAY_CANARIES": "false",
            "EMBEDWAY_LOCAL_SERVERS": "false",
            "EMBEDWAY_LOG_LEVEL": "error",
        }
        gateway = start_embedway(stack, f"http://127.0.0.1:{port}/v1", folder / "gw", **settings)
        print(
            "| case | ms | CPU ms | formats alone ms | provider ms | ratio | CPU ratio | "
            "small p50 ms | p99 | worst | ping worst ms | MiB |"
        )
        print("| --- |" + " ---: |" * 11)
        for case in CASES:
            if chosen.case in case.name:
                print(measure(case, gateway, port, pool, chosen.seconds), flush=True)


if __name__ == "__main__":
    main()
