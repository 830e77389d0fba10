"""Runs an HTTP server in a thread that records calls and answers by a function."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Recorded:
    """A call as it was received."""

    method: str
    target: str
    """The path and the query, as they were on the wire."""
    headers: dict[str, str]
    """The headers, with names in lower case."""
    content: bytes

    @property
    def body(self) -> Any:
        """The JSON of the call."""
        return json.loads(self.content)


Answer = Callable[[Recorded], Any]
"""Returns the JSON to answer a call with."""


@dataclass
class Recorder:
    """The server."""

    url: str
    answer: Answer
    headers: dict[str, str] = field(default_factory=dict)
    """Headers to add to every answer."""
    calls: list[Recorded] = field(default_factory=list)

    def taken(self) -> list[Recorded]:
        """Return the calls since the last time, and forget them."""
        calls, self.calls = self.calls, []
        return calls


@contextmanager
def recording(answer: Answer) -> Iterator[Recorder]:
    """Run a server on a free port."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            call = Recorded(
                self.command,
                self.path,
                {name.lower(): value for name, value in self.headers.items()},
                self.rfile.read(int(self.headers["content-length"])),
            )
            recorder.calls.append(call)
            body = json.dumps(recorder.answer(call)).encode()
            self.send_response(200)
            for name, value in recorder.headers.items():
                self.send_header(name, value)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        recorder = Recorder(f"http://127.0.0.1:{server.server_port}", answer)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield recorder
        finally:
            server.shutdown()
            thread.join()
