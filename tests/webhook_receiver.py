"""Runs a receiver of webhooks in a thread, which keeps what it gets and answers as it is told."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@dataclass(frozen=True)
class Received:
    """One call."""

    path: str
    headers: dict[str, str]
    """The headers, with names in lower case."""
    content: bytes

    @property
    def body(self) -> Any:
        """The JSON of the call."""
        return json.loads(self.content)

    @property
    def id(self) -> str:
        """The event's id."""
        return self.headers["webhook-id"]


@dataclass
class Receiver:
    """The receiver."""

    url: str
    answer: Callable[[Received], int] = lambda _: 200
    """Returns the status to answer with, now or later."""
    raw: bytes = b""
    """What to write in place of an answer."""
    location: str = ""
    calls: list[Received] = field(default_factory=list)

    def types(self) -> list[str]:
        """Return the types of the events that arrived."""
        return [each.body["type"] for each in self.calls]

    def ids(self) -> list[str]:
        """Return the ids of the events that arrived."""
        return [each.id for each in self.calls]

    def section(self, name: str, more: str = "") -> str:
        """Return the section of embedway.toml that sends events here."""
        return f'[webhooks.{name}]\nurl = "{self.url}/{name}"\nsecret = "{SECRET}"\n{more}\n'


@contextmanager
def receiving() -> Iterator[Receiver]:
    """Run a receiver on a free port."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            content = self.rfile.read(int(headers["content-length"]))
            call = Received(self.path, headers, content)
            receiver.calls.append(call)
            status = receiver.answer(call)
            if receiver.raw:
                self.wfile.write(receiver.raw)
                return
            self.send_response(status)
            if receiver.location:
                self.send_header("location", receiver.location)
            self.send_header("content-length", "0")
            self.end_headers()

        def handle(self) -> None:
            try:
                super().handle()
            except OSError:
                self.close_connection = True  # the sender has given up

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    receiver = Receiver(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=lambda: server.serve_forever(0.02), daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Run a receiver of webhooks."""
    with receiving() as running:
        yield running
