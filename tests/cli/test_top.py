"""`embedway top` shows what was sent: at a terminal of any width, in a pipe, and as JSON."""

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
from conftest import Gateway, clean_environment, embedway, free_port

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
        for each in ("COLUMNS", "LINES"):  # they would hide the terminal's size
            env.pop(each, None)
        with os.fdopen(os.dup(self._end), "r+b", buffering=0) as stream:
            self.process = Process(
                ["top", *arguments], env=env, cwd=Path.cwd(), streams=(stream, stream, stream)
            )
        self.printed = ""
        self._returned = 0

    def read_until(self, *texts: str) -> str:
        """Return what is printed, after what was returned before, until it has these texts."""
        start, deadline = self._returned, time.monotonic() + WAIT_S
        while not all(each in self.printed[start:] for each in texts):
            assert time.monotonic() < deadline, (texts, self.printed[start:])
            if select.select([self.main], [], [], 0.1)[0]:
                self.printed += os.read(self.main, 65_536).decode(errors="replace")
        ends = (self.printed.index(each, start) + len(each) for each in texts)
        self._returned = max(ends)
        return self.printed[start : self._returned]

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
def terminal(
    *arguments: str, env: dict[str, str], columns: int = 100, lines: int = 24
) -> Iterator[Terminal]:
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


def run(env: dict[str, str], *arguments: str, status: int = 0) -> tuple[str, str]:
    """What the command prints and says in a pipe."""
    done = embedway("top", *arguments, env=env)
    assert done.returncode == status, done.stderr
    return done.stdout, done.stderr


def test_once(gateway: Gateway, admin: dict[str, str]) -> None:
    """In a pipe, one picture has the requests that were sent, and no codes of a terminal."""
    for _ in range(3):
        assert gateway.embed(input=["one", "two"], user="top-alice").status_code == 200
    assert gateway.embed(model="nope", input="a", user="top-\x1b[7mbob").status_code == 404
    printed, said = run(admin, "--by", "user", "--seconds", "900")
    assert not said
    assert not re.search(r"[ \t]$|\x1b", printed, re.MULTILINE)
    shown = rows(printed)
    assert shown["top-alice"][:3] == [f"{3 / 900:.3g}", "0", f"{6 / 900:.3g}"]
    assert shown["top-\\x1b[7mbob"][:3] == ["0", "1", "0"]
    assert "replica" in shown


def test_json(gateway: Gateway, admin: dict[str, str]) -> None:
    """With --json, each answer is a line of JSON; --once prints one."""
    assert gateway.embed(input="one", user="top-json").status_code == 200
    printed, _ = run(admin, "--once", "--json", "--by", "user")
    [line] = printed.splitlines()
    answer = json.loads(line)
    assert "top-json" in {each["user_id"] for each in answer["results"]}
    assert answer["replica"]["gauges"]["requests_in_flight_max"] == 512


def test_refused(gateway: Gateway, admin: dict[str, str]) -> None:
    """Without a gateway, a key, a valid key or the rights, a line says what to do."""
    wrong = admin | {"EMBEDWAY_API_KEY": "sk-gateway-nope"}
    few_rights = admin | {"EMBEDWAY_API_KEY": gateway.key}
    no_key = {name: each for name, each in admin.items() if name != "EMBEDWAY_API_KEY"}
    nowhere = f"--url=http://127.0.0.1:{free_port()}"
    for env, arguments, status, text in (
        (admin, [nowhere], 1, "embedway serve"),
        (admin, [nowhere, "--json"], 1, "No gateway answers"),
        (admin, ["--url=nowhere"], 2, "http://127.0.0.1:8080"),
        (admin, ["--interval=0"], 2, "--interval 2"),
        (admin, ["--seconds=7"], 2, "'60'"),
        (no_key, [], 1, "export EMBEDWAY_API_KEY"),
        (wrong, [], 1, "embedway keys create"),
        (few_rights, [], 1, "--admin"),
    ):
        printed, said = run(env, *arguments, status=status)
        assert not printed
        assert text in said
        assert "Traceback" not in said


def test_live(gateway: Gateway, admin: dict[str, str]) -> None:
    """At a terminal, keys choose what rows stand for, and q leaves the terminal as it was."""
    assert gateway.embed(input="one", user="top-live").status_code == 200
    with terminal("--interval", "1", env=admin) as shown:
        assert ENTER in shown.read_until("all-minilm-l6-v2", "q quit")
        shown.type(b"u")
        shown.read_until("top-live")
        shown.type(b"?k")
        shown.read_until("api key", "tests")
        shown.type(b"q")
        assert shown.end() == 0


def test_interrupted(admin: dict[str, str]) -> None:
    """Ctrl-C and SIGTERM leave the terminal as it was, and print no traceback."""
    with terminal(env=admin) as by_key, terminal(env=admin) as by_signal:
        for each in (by_key, by_signal):
            each.read_until("q quit")
        by_key.type(b"\x03")
        by_signal.process.send_signal(signal.SIGTERM)
        for each in (by_key, by_signal):
            assert each.end() == 130
            assert "Traceback" not in each.printed


@pytest.mark.parametrize("columns", [20, 40, 80])
def test_narrow(columns: int, admin: dict[str, str]) -> None:
    """A narrow terminal shows fewer columns, and no line is longer than the terminal."""
    with terminal("--interval", "1", env=admin, columns=columns, lines=16) as shown:
        picture = shown.read_until("req/s", "keys:")
        shown.type(b"q")
        shown.end()
    assert ("items/s" in picture) == (columns >= 80)
    plain = re.sub(r"\x1b\[[?\d;]*[a-zA-Z]", "", picture)
    assert max(len(line.rstrip("\r\n")) for line in plain.splitlines()) <= columns


def test_goes_on(gateway: Gateway, admin: dict[str, str]) -> None:
    """While the gateway restarts or answers nonsense, it says so, and goes on once it is back."""
    port = free_port()
    relay = Relay(gateway, port)
    try:
        url = f"--url=http://127.0.0.1:{port}/v1"
        with terminal("--interval", "1", url, env=admin) as shown:
            shown.read_until("q quit")
            relay.lie = (503, b'{"error": {"message": "Later."}}')
            shown.read_until("Asking again: Later.")
            for relay.lie in (
                (200, b"[]"),
                (200, b"\xff"),
                (200, b'{"total": 1}'),
                (502, b"<html>"),
            ):
                shown.read_until("Asking again")
            relay.close()
            shown.read_until("No gateway answers")
            relay = Relay(gateway, port)
            shown.read_until("q quit")
            relay.lie = (401, b'{"error": {"message": "Revoked."}}')
            assert shown.end() == 1
            shown.read_until("Revoked.")
    finally:
        relay.close()
