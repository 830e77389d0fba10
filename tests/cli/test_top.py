"""`embedway top`: what it shows is what was sent, at a terminal of any width, in a pipe, as JSON."""

import json
import os
import pty
import re
import select
import signal
import termios
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from command_line import Process
from conftest import Gateway, clean_environment, free_port

WAIT_S = 60
ENTER, LEAVE = "\x1b[?1049h", "\x1b[?1049l"
"""What switches a terminal to a screen of its own, and back."""
SHOW_CURSOR = "\x1b[?25h"


@pytest.fixture(scope="module")
def admin(gateway: Gateway) -> dict[str, str]:
    """The environment of an administrator."""
    return gateway.env | {"EMBEDWAY_API_KEY": gateway.new_key("top", "--admin")["key"]}


class Terminal:
    """A terminal in which `embedway top` runs."""

    def __init__(self, *arguments: str, env: dict[str, str], columns: int, lines: int = 24) -> None:
        self.main, self._end = pty.openpty()
        termios.tcsetwinsize(self._end, (lines, columns))
        self.before = termios.tcgetattr(self._end)
        env = clean_environment() | env | {"TERM": "xterm"}
        with open(os.dup(self._end), "r+b", buffering=0) as stream:
            self.process = Process(
                ["top", *arguments], env=env, cwd=Path.cwd(), streams=(stream, stream, stream)
            )
        self.printed = ""

    def read_until(self, *texts: str) -> str:
        """Return what is printed from now on until it has all of these texts."""
        start, deadline = len(self.printed), time.monotonic() + WAIT_S
        while not all(each in self.printed[start:] for each in texts):
            assert time.monotonic() < deadline, self.printed[start:]
            if select.select([self.main], [], [], 0.1)[0]:
                self.printed += os.read(self.main, 65_536).decode(errors="replace")
        return self.printed[start:]

    def type(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self.main, keys)

    def end(self) -> int:
        """Wait until the command has ended; return its status. The terminal is as before."""
        self.read_until(LEAVE)
        status = self.process.wait(WAIT_S)
        assert SHOW_CURSOR in self.printed
        assert termios.tcgetattr(self._end) == self.before
        return status

    def close(self) -> None:
        """End the command, whatever it does."""
        self.process.kill()
        os.close(self._end)
        os.close(self.main)


@contextmanager
def terminal(*arguments: str, env: dict[str, str], columns: int = 100, lines: int = 24) -> Iterator[Terminal]:
    """Run `embedway top` in a terminal of this size."""
    opened = Terminal(*arguments, env=env, columns=columns, lines=lines)
    try:
        yield opened
    finally:
        opened.close()


class Relay(ThreadingHTTPServer):
    """A server in front of a gateway, which can answer in its stead."""

    allow_reuse_address = True

    def __init__(self, gateway: Gateway, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Forward)
        self.gateway = gateway
        self.lie: tuple[int, bytes] | None = None
        """The status and body to answer with instead."""
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self.shutdown()
        self.server_close()
        self._thread.join()


class _Forward(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        headers = {"authorization": self.headers["authorization"]}
        assert isinstance(self.server, Relay)
        if self.server.lie:
            status, body = self.server.lie
        else:
            url = self.server.gateway.url + self.path
            try:
                with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
                    status, body = answer.status, answer.read()
            except urllib.error.HTTPError as error:
                with error:
                    status, body = error.code, error.read()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""


def rows(picture: str) -> dict[str, list[str]]:
    """The rows of a picture, by their first word."""
    lines = (line.split() for line in picture.splitlines())
    return {words[0]: words[1:] for words in lines if words}


def test_once(gateway: Gateway, admin: dict[str, str]) -> None:
    """In a pipe, one picture has the requests that were sent, by end user, and ends."""
    for _ in range(3):
        assert gateway.embed(input=["one", "two"], user="top-alice").status_code == 200
    assert gateway.embed(model="nope", input="a", user="top-bob").status_code == 404
    done = gateway.cli("top", "--by", "user", "--seconds", "900", env=admin) if False else None
    done = run(admin, "--by", "user", "--seconds", "900")
    assert not re.search(r"[ \t]$|\x1b", done, re.MULTILINE)
    assert rows(done)["user"] == ["req/s", "errors", "items/s", "tokens/s", "USD/min", "p50", "ms", "p99", "ms"]  # fmt: skip
    assert rows(done)["top-alice"][:3] == [f"{3 / 900:.3g}", "0", f"{6 / 900:.3g}"]
    assert rows(done)["top-bob"][:3] == ["0", "1", "0"]
