"""Getting a wheel by way of pip, which knows this machine's index, logins, proxies, certificates.

Pip is asked for addresses only, since it cannot continue a broken download; what we cannot fetch
ourselves it fetches whole. This module must not know the address of any package index.
"""

import ast
import contextlib
import os
import re
import ssl
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import HTTPSHandler, OpenerDirector, ProxyHandler, build_opener

import truststore
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import Version

from embedway.catalog.model import Wheel
from embedway.local.fetch import Progress, RefusedError, UnavailableError, fetch

_URL = re.compile(r"(?:https?|file)://[^\s'\"<>]+")


def download(wheel: Wheel, part: Path, progress: Progress | None) -> None:
    """Brings the wheel to the file `part`, whose digest may be another than the wheel's.

    Raises:
        UnavailableError: Neither we nor pip could fetch it.
    """
    options = _options()
    nobody_answered = True
    for url in _addresses(wheel):
        with contextlib.suppress(RefusedError, UnavailableError):
            if fetch(url, part, opener=_opener(options), sha256=wheel.sha256, progress=progress):
                return
            nobody_answered = False
    if nobody_answered:
        with tempfile.TemporaryDirectory(dir=part.parent) as folder:
            pin = f"{wheel.name}=={wheel.version}"
            _pip("download", "--no-deps", "--only-binary", ":all:", "--dest", folder, pin)
            next(Path(folder).glob("*.whl")).replace(part)


def names(wheel: Wheel, file_name: str) -> bool:
    """Whether a file of this name is the wheel, whatever its tags."""
    try:
        name, version, *_ = parse_wheel_filename(file_name)
    except InvalidWheelFilename:
        return False
    return (name, version) == (canonicalize_name(wheel.name), Version(wheel.version))


def _options() -> dict[str, str]:
    """What pip is configured with, from its files and environment, by option name."""
    found: dict[str, str] = {}
    lines = _pip("config", "list").splitlines()
    for scope in ("global.", "download.", ":env:."):  # each overrules the one before
        for line in lines:
            if line.startswith(scope):
                option, _, value = line.removeprefix(scope).partition("=")
                found[option] = str(ast.literal_eval(value))
    return found


def _opener(options: dict[str, str]) -> OpenerDirector:
    # The variables are those that pip's own transport reads; they are no settings of ours.
    bundle = options.get("cert") or os.getenv("REQUESTS_CA_BUNDLE") or os.getenv("CURL_CA_BUNDLE")
    try:
        if bundle:
            context = ssl.create_default_context(cafile=bundle)
        else:
            context = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    except OSError as error:
        raise RefusedError(f"{bundle!r}: {error}") from error
    proxy = options.get("proxy")
    proxies = ProxyHandler({"http": proxy, "https": proxy} if proxy else None)
    return build_opener(proxies, HTTPSHandler(context=context))


def _addresses(wheel: Wheel) -> list[str]:
    """Every address of the wheel that pip sees, local files first, without logins.

    `pip index versions` reads the index pages only, while `pip download`, `pip lock` and
    `pip install --dry-run` fetch the whole wheel before they name its address. Its log holds all
    links at any verbosity; only addresses are picked out of it, not pip's wording.
    """
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "pip.log")
        log.touch()
        with contextlib.suppress(UnavailableError):  # pip may not want what it found; we do
            _pip("index", "versions", wheel.name, "--log", str(log))
        links: list[str] = _URL.findall(log.read_text("utf-8", "replace"))
    found: dict[str, None] = {}
    for link in links:
        parts = urlsplit(link.rstrip("),;:"))
        if names(wheel, unquote(parts.path).rpartition("/")[2]):
            host = parts.netloc.rpartition("@")[2]
            found[parts._replace(netloc=host, fragment="").geturl()] = None
    return sorted(found, key=lambda url: not url.startswith("file:"))


def _pip(*arguments: str) -> str:
    """What pip prints."""
    # -P: a file named pip.py in the working directory is not pip. With the five retries that are
    # pip's own, a start without a network hangs for minutes.
    command = [sys.executable, "-P", "-m", "pip", *arguments]
    command += ["--no-input", "--disable-pip-version-check", "--retries", "1"]
    done = subprocess.run(
        command, check=False, stdin=subprocess.DEVNULL, capture_output=True, errors="replace"
    )
    if done.returncode:
        said = re.findall(" broken by (.+)", done.stderr) or done.stderr.splitlines() or ["nothing"]
        raise UnavailableError(f"`pip {' '.join(arguments[:2])}` failed with {said[-1]}")
    return done.stdout
