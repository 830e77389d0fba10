"""An HTTP server in a thread that keeps what it is sent and answers as it is told."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Recorded:
    """One call as it came."""

    method: str
    target: str
    """Path and query, as they were on the wire."""
    headers: dict[str, str]
    """Names in lower case."""
    content: bytes

    @property
    def body(self) -> Any:
        """The JSON that was sent."""
        return json.loads(self.content)


Answer = Callable[[Recorded], Any]
"""The JSON to answer a call with."""


@dataclass
class Recorder:
    """The server."""

    url: str
    answer: Answer
    headers: dict[str, str] = field(default_factory=dict)
    """Of every answer, beside the usual."""
    calls: list[Recorded] = field(default_factory=list)

    def taken(self) -> list[Recorded]:
        """The calls since this was last asked."""
        calls, self.calls = self.calls, []
        return calls


@contextmanager
def recording(answer: Answer) -> Iterator[Recorder]:
    """Runs one at a free port."""

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
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        recorder = Recorder(f"http://127.0.0.1:{server.server_port}", answer)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield recorder
        finally:
            server.shutdown()
            thread.join()
