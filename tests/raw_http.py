"""HTTP/1.1 by hand, for tests of what no well-behaved client would send; and a steady load."""

import base64
import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx
import numpy as np
from conftest import Gateway, get

from embedway.testing import Upstream, UpstreamReply

PATH = "/v1/embeddings"
LARGE_ITEMS, LARGE_WIDTH = 2048, 384
CLOSES_WITHIN_S = 60
"""Far more than any timeout the tests set: that something closes at all is what they ask."""


class Wire:
    """One connection to a gateway, byte by byte."""

    def __init__(self, gateway: Gateway, *, receive_buffer: int | None = None) -> None:
        self.key = gateway.key
        self._socket = socket.socket()
        if receive_buffer:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._socket.settimeout(CLOSES_WITHIN_S)
        self._socket.connect(("127.0.0.1", gateway.port))
        self._got = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def close(self) -> None:
        self._socket.close()

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def send_head(self, *headers: str, version: str = "1.1", method: str = "POST") -> None:
        """The head of an embeddings request with the key and `headers`."""
        lines = (
            f"{method} {PATH} HTTP/{version}",
            "host: test",
            f"authorization: Bearer {self.key}",
            *headers,
            "\r\n",
        )
        self.send("\r\n".join(lines).encode("latin-1"))

    def send_request(self, body: bytes, *headers: str, version: str = "1.1") -> None:
        """A whole request."""
        self.send_head(f"content-length: {len(body)}", *headers, version=version)
        self.send(body)

    def reply(self) -> httpx.Response | None:
        """The next complete response; None if the connection ends before there is one."""
        while b"\r\n\r\n" not in self._got:
            if not self._receive():
                return None
        head, _, rest = self._got.partition(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        headers = [tuple(line.split(": ", 1)) for line in lines]
        number = int(status.split()[1])
        length = int(httpx.Headers(headers).get("content-length", 0))
        self._got = rest
        while len(self._got) < length:
            if not self._receive():
                return None
        content, self._got = self._got[:length], self._got[length:]
        return httpx.Response(number, headers=headers, content=content)

    def closed(self) -> bool:
        """Waits for the other end to close; False if it sends something first."""
        try:
            return not self._got and not self._receive()
        except TimeoutError:
            return False

    def _receive(self) -> bool:
        try:
            chunk = self._socket.recv(65536)
        except ConnectionError:
            return False
        self._got += chunk
        return bool(chunk)


def give_large_answers(folder: Path, upstream: Upstream) -> None:
    """Lets the gateway of this folder, once it starts, answer `LARGE` by 9 MB at little cost."""
    vector = np.random.default_rng(0).standard_normal(LARGE_WIDTH).astype("<f4")
    embedding = base64.b64encode((vector / np.linalg.norm(vector)).tobytes()).decode()
    data = [{"index": index, "embedding": embedding} for index in range(LARGE_ITEMS)]
    usage = {"prompt_tokens": LARGE_ITEMS, "total_tokens": LARGE_ITEMS}
    answer = {"model": "large", "data": data, "usage": usage}
    headers = {"content-type": "application/json"}
    upstream.always(UpstreamReply(body=json.dumps(answer).encode(), headers=headers))
    (folder / "embedway.toml").write_text(
        f'[providers.big]\nkind = "openai"\nbase_url = "{upstream.url}/openai/v1"\napi_key = "k"\n'
        f'[[providers.big.models]]\nid = "large"\ndimensions = {LARGE_WIDTH}\n'
        'tokenizer = "cl100k_base"\n'
    )


def body(**fields: Any) -> bytes:
    """The JSON of a request."""
    return json.dumps(fields).encode()


LARGE = body(model="big:large", input=["a"] * LARGE_ITEMS)


def until(
    condition: Callable[[], object], *, within_s: float = 120, happened: object = None
) -> None:
    """Poll `condition` until it holds; if it does not, show what happened instead."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, ("it did not happen", happened)
        time.sleep(0.01)


def gauge(gateway: Gateway, name: str) -> float:
    """The value of a metric without labels."""
    lines = get(f"{gateway.url}/metrics", timeout=30).text.splitlines()
    return float(next(line for line in lines if line.startswith(f"{name} ")).split()[1])


def idle(gateway: Gateway) -> bool:
    """Whether nothing is in flight and nothing waits."""
    names = ("requests_in_flight", "in_flight_bytes", "queue_tokens", "ledger_rows_waiting")
    return not any(gauge(gateway, f"embedway_{name}") for name in names)


@dataclass
class Load:
    """What clients of a load saw: a client keeps its connection until it is told to close it."""

    answers: list[tuple[Mapping[str, Any], dict[str, Any]]] = field(default_factory=list)
    """Each complete 200: what was asked and what was answered."""
    refused: list[int] = field(default_factory=list)
    """The statuses of complete answers that were not 200."""
    broken: list[Exception] = field(default_factory=list)
    """Requests that got no complete answer."""
    is_stopping: bool = False
    """Whether the gateway was told to stop. Linux then resets new connections that it has not
    accepted yet, which to a client is the same as a port that refuses it."""


LONGEST_IDLE_S = 0.4
"""Less than `server.INTERRUPT_GRACE_S`: a client that is idle for longer may be left behind."""


@contextlib.contextmanager
def load(
    gateway: Gateway,
    ask: Callable[[int], Mapping[str, Any]],
    *,
    connections: int = 16,
    headers: Mapping[str, str] | None = None,
) -> Iterator[Load]:
    """Keeps `connections` busy with what `ask(n)` returns until the block ends.

    A client ends when the port refuses it, or at a failure.
    """
    seen, over, numbers = Load(), threading.Event(), iter(range(10**9))

    def client() -> None:
        link = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=120)
        with contextlib.closing(link):
            since_s: float | None = time.monotonic()
            while since_s is not None and not over.is_set():
                since_s = ask_once(link, idle_since_s=since_s)

    def ask_once(link: http.client.HTTPConnection, *, idle_since_s: float) -> float | None:
        """Since when the connection may be idle: when it was last asked; None at the end."""
        request = ask(next(numbers))
        credentials = {"authorization": f"Bearer {gateway.key}"}
        sent_s, is_new = None, link.sock is None
        try:
            if is_new:
                try:
                    link.connect()
                except ConnectionRefusedError:
                    return None
                idle_since_s = time.monotonic()
            link.request("POST", PATH, json.dumps(request), credentials | dict(headers or {}))
            sent_s = time.monotonic()
            reply = link.getresponse()
            content = reply.read()
        except (OSError, http.client.HTTPException) as error:
            if seen.is_stopping and is_new and isinstance(error, ConnectionError):
                return None
            # On a machine this busy a client may be idle for longer than any server waits for it.
            if (sent_s or time.monotonic()) - idle_since_s < LONGEST_IDLE_S:
                seen.broken.append(error)
            return None
        if reply.status == 200:
            seen.answers.append((request, json.loads(content)))
        else:
            seen.refused.append(reply.status)
        return sent_s

    threads = [threading.Thread(target=client, daemon=True) for _ in range(connections)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        over.set()
        for thread in threads:
            thread.join(120)
        assert not any(thread.is_alive() for thread in threads)
