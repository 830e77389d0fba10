"""Runs a driver in the environment of its client, and asks it for the outcomes of cases."""

import json
import os
import queue
import subprocess
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

ANSWER_S = 600
"""The longest wait for a client, in seconds; far more than any case takes."""

Outcome = dict[str, Any]
"""What a client did: its `vectors`, the text that it `found`, or an `error` and its `message`; or
why it `lacks` the case; or that it still `waits`."""
Command = Sequence[str | Path]


class Driver:
    """A driver in a process of its own, which is started again after it was stopped."""

    def __init__(self, command: Command, folder: Path) -> None:
        self._command = command
        self._folder = folder / "client"
        self._folder.mkdir(exist_ok=True)
        self._log = folder / "client.log"
        # Clients may write to the home folder, and must find no other key or address.
        self._env = {
            "PATH": os.environ["PATH"],
            "HOME": str(self._folder),
            "TIKTOKEN_CACHE_DIR": str(folder / "tiktoken"),
        }
        self._process: subprocess.Popen[str] | None = None
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.versions: dict[str, str] = {}
        self._start()

    def _start(self) -> None:
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                self._command, cwd=self._folder, env=self._env, stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip
        self._lines = queue.SimpleQueue()
        self._reader = threading.Thread(target=_pass_on, args=(self._process, self._lines))
        self._reader.start()
        self.versions = self._read(ANSWER_S)["versions"]

    def ask(self, question: dict[str, Any], timeout_s: float) -> Outcome:
        """Return the outcome of a case.

        Raises:
            TimeoutError: There is none in time; the driver is stopped.
        """
        if self._process is None:
            self._start()
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return self._read(timeout_s)

    def _read(self, timeout_s: float) -> Outcome:
        try:
            line = self._lines.get(timeout=timeout_s)
        except queue.Empty:
            self.stop()
            raise TimeoutError from None
        if not line:
            raise RuntimeError(f"The driver has ended:\n{self._log.read_text()}")
        return json.loads(line)

    def stop(self) -> None:
        """End the process, whatever it does."""
        if self._process is not None:
            self._process.kill()
            self._reader.join()
            # What was not read yet is lost with the process.
            with suppress(BrokenPipeError):
                self._process.communicate()
            self._process = None


def _pass_on(process: subprocess.Popen[str], lines: queue.SimpleQueue[str]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.put(line)
    lines.put("")
