"""Pins and installs each client in an environment of its own, in `compat/.envs`."""

import os
import subprocess
import sys
from pathlib import Path

from compat.registry import HERE, Client

ENVIRONMENTS = HERE / ".envs"
PINS = HERE / "pins"
UV = Path(sys.executable).with_name("uv")


def command_of(client: Client) -> list[str | Path]:
    """Return the command that runs the client's driver in its installed environment."""
    folder = ENVIRONMENTS / client.home
    return [folder / "bin/python", *_python_driver(client)]


def command_here(client: Client) -> list[str | Path]:
    """Return the command that runs the client's driver in the environment of this program."""
    return [sys.executable, *_python_driver(client)]


def install(client: Client) -> None:
    """Install the pinned packages, unless that was done for these pins."""
    pins = PINS / f"{client.home}.txt"
    folder = ENVIRONMENTS / client.home
    done = folder / "pins"
    if done.exists() and done.read_bytes() == pins.read_bytes():
        return
    _uv("venv", "--clear", "--python", sys.executable, folder)
    _uv("pip", "install", "--python", folder, "--require-hashes", "-r", pins)
    done.write_bytes(pins.read_bytes())


def pin(client: Client) -> None:
    """Write the newest versions that fit to the client's pins."""
    _uv(
        *("pip", "compile", "-", "--universal", "--python-version", "3.11", "--generate-hashes"),
        *("--no-emit-index-url", "--no-emit-find-links", "--no-header", "--no-annotate"),
        *("--output-file", PINS / f"{client.home}.txt", "--upgrade"),
        given="\n".join(each.replace("@", "==") for each in client.packages),
    )


def _python_driver(client: Client) -> list[str | Path]:
    # With -P, files in the driver's folder cannot stand in for the packages of those names.
    return ["-P", HERE / "driver.py", client.file, *client.distributions]


def _uv(*arguments: str | Path, given: str = "") -> None:
    env = {"UV_CACHE_DIR": str(ENVIRONMENTS / ".uv")} | os.environ
    _run([UV, *arguments, "--quiet"], env=env, given=given)


def _run(command: list[str | Path], *, env: dict[str, str], given: str = "") -> None:
    done = subprocess.run(
        command, env=env, input=given, text=True, capture_output=True, check=False
    )
    if done.returncode:
        words = " ".join(map(str, command))
        sys.exit(f"{words} failed with status {done.returncode}:\n{done.stderr}{done.stdout}")
