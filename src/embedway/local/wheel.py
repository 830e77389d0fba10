"""Downloads a wheel with the index, logins, proxies and certificates of pip's configuration.

pip finds the wheel's address. This module downloads it, because pip cannot resume a download whose
process has ended. Where a server refuses this module, pip downloads the wheel itself.
"""

import ast
import contextlib
import hashlib
import os
import re
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit
from urllib.request import HTTPSHandler, OpenerDirector, ProxyHandler, Request, build_opener

import truststore
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import Version

from embedway.catalog.model import WheelSource

Progress = Callable[[int, int | None], None]
"""Called with the bytes downloaded so far, and the total if the server says it."""

_CHUNK_BYTES = 256 * 1024
_STALL_TIMEOUT_S = 30
_PAUSES_S = (0.2, 1, 3, 8)
"""The pauses before each try after one without progress. After the last, the download fails."""
_TRANSIENT_STATUSES = frozenset({408, 429, 500, 502, 503, 504})
_URL = re.compile(r"(?:https?|file)://[^\s'\"<>]+")


class DownloadError(Exception):
    """A download failed. The message says how."""

    def __init__(self, message: str, *, is_transient: bool) -> None:
        super().__init__(message)
        self.is_transient = is_transient
        """Whether another try may succeed."""


def download_wheel(wheel: WheelSource, part: Path, progress: Progress | None) -> None:
    """Download the wheel to the file `part`, and continue a download that is there.

    Check the digest afterwards: it may differ from the wheel's.

    Raises:
        DownloadError: Neither this module nor pip could download the wheel.
    """
    options = _pip_options()
    is_complete = False
    for url in _addresses(wheel):
        with contextlib.suppress(DownloadError):
            was_resumed = _complete(_opener(options), url, part, progress)
            if was_resumed and not _has_digest(part, wheel):
                part.write_bytes(b"")  # the bytes of before may be wrong
                _complete(_opener(options), url, part, progress)
            if _has_digest(part, wheel):
                return
            is_complete = True
    if not is_complete:
        with tempfile.TemporaryDirectory(dir=part.parent) as folder:
            pin = f"{wheel.name}=={wheel.version}"
            _pip("download", "--no-deps", "--only-binary", ":all:", "--dest", folder, pin)
            next(Path(folder).glob("*.whl")).replace(part)


def is_named_as(wheel: WheelSource, file_name: str) -> bool:
    """Return whether a file of this name is the wheel, whatever its tags."""
    try:
        name, version, *_ = parse_wheel_filename(file_name)
    except InvalidWheelFilename:
        return False
    return (name, version) == (canonicalize_name(wheel.name), Version(wheel.version))


def _has_digest(part: Path, wheel: WheelSource) -> bool:
    with part.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == wheel.sha256


def _complete(opener: OpenerDirector, url: str, part: Path, progress: Progress | None) -> bool:
    """Complete the file, with retries; return whether it has bytes of several replies."""
    part.touch()
    most_bytes, failures = part.stat().st_size, 0
    while True:
        try:
            return _receive(opener, url, part, progress) > 0
        except DownloadError as error:
            size = part.stat().st_size
            failures = 0 if size > most_bytes else failures + 1
            if not error.is_transient or failures > len(_PAUSES_S):
                raise
            most_bytes = max(most_bytes, size)
        time.sleep(_PAUSES_S[max(failures - 1, 0)])


def _receive(opener: OpenerDirector, url: str, part: Path, progress: Progress | None) -> int:
    """Add the bytes of one reply to the file; return the offset they start at."""
    size = part.stat().st_size
    with _open(opener, url, size) as reply:
        # Any other status means that the server ignores ranges, or the file is local.
        start = size if reply.status == HTTPStatus.PARTIAL_CONTENT else 0
        if start and not reply.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            raise DownloadError("answered with another range than requested", is_transient=False)
        length = reply.headers.get("Content-Length")
        done, total = start, None if length is None else start + int(length)
        with part.open("ab" if start else "wb") as file:
            while chunk := _read(reply):
                file.write(chunk)
                done += len(chunk)
                if progress:
                    progress(done, total)
    if total is not None and done < total:
        raise DownloadError(f"broke off after {done} of {total} bytes", is_transient=True)
    return start


def _open(opener: OpenerDirector, url: str, offset: int) -> HTTPResponse:
    """Request all bytes from `offset` on."""
    headers = {"User-Agent": "embedway"} | ({"Range": f"bytes={offset}-"} if offset else {})
    try:
        return opener.open(Request(url, headers=headers), timeout=_STALL_TIMEOUT_S)
    except HTTPError as error:
        error.close()
        if offset and error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return _open(opener, url, 0)
        is_transient = error.code in _TRANSIENT_STATUSES
        raise DownloadError(
            f"answered {error.code} {error.reason}", is_transient=is_transient
        ) from error
    except (OSError, HTTPException) as error:
        reason = error.reason if isinstance(error, URLError) else error
        # A wrong certificate stays wrong. A closed connection, an SSLError too, is transient.
        is_permanent = isinstance(reason, ssl.SSLError) and not isinstance(reason, ssl.SSLEOFError)
        raise DownloadError(
            f"could not be reached: {reason}", is_transient=not is_permanent
        ) from error


def _read(reply: HTTPResponse) -> bytes:
    try:
        return reply.read1(_CHUNK_BYTES)
    except (OSError, HTTPException) as error:  # caught here, where the disk cannot raise it
        raise DownloadError(f"broke off: {error!r}", is_transient=True) from error


def _pip_options() -> dict[str, str]:
    """Return the options that pip's files and environment set, by name."""
    options: dict[str, str] = {}
    lines = _pip("config", "list").splitlines()
    for scope in ("global.", "download.", ":env:."):  # each overrides the one before
        for line in lines:
            if line.startswith(scope):
                option, _, value = line.removeprefix(scope).partition("=")
                options[option] = str(ast.literal_eval(value))
    return options


def _opener(options: dict[str, str]) -> OpenerDirector:
    # pip itself reads these variables; they are not settings of the gateway.
    bundle = options.get("cert") or os.getenv("REQUESTS_CA_BUNDLE") or os.getenv("CURL_CA_BUNDLE")
    try:
        if bundle:
            context = ssl.create_default_context(cafile=bundle)
        else:
            context = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    except OSError as error:
        raise DownloadError(f"{bundle!r}: {error}", is_transient=False) from error
    proxy = options.get("proxy")
    proxies = ProxyHandler({"http": proxy, "https": proxy} if proxy else None)
    return build_opener(proxies, HTTPSHandler(context=context))


def _addresses(wheel: WheelSource) -> list[str]:
    """Return every address of the wheel that pip sees, local files first, without logins.

    `pip index versions` reads only the index pages; `pip download`, `pip lock` and
    `pip install --dry-run` fetch the whole wheel before they name its address. Its log has all
    links at any verbosity. Only addresses are read from it, so pip may change its wording.
    """
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "pip.log")
        log.touch()
        with contextlib.suppress(DownloadError):  # pip may refuse what it found; it is used here
            _pip("index", "versions", wheel.name, "--log", str(log))
        links: list[str] = _URL.findall(log.read_text("utf-8", "replace"))
    addresses: dict[str, None] = {}
    for link in links:
        parts = urlsplit(link.rstrip("),;:"))
        if is_named_as(wheel, unquote(parts.path).rpartition("/")[2]):
            host = parts.netloc.rpartition("@")[2]
            addresses[parts._replace(netloc=host, fragment="").geturl()] = None
    return sorted(addresses, key=lambda url: not url.startswith("file:"))


def _pip(*arguments: str) -> str:
    """Run pip and return what it prints."""
    # With -P, a file pip.py in the working directory is not taken for pip. With pip's default of
    # five retries, a start without a network hangs for minutes.
    command = [sys.executable, "-P", "-m", "pip", *arguments]
    command += ["--no-input", "--disable-pip-version-check", "--retries", "1"]
    done = subprocess.run(
        command, check=False, stdin=subprocess.DEVNULL, capture_output=True, errors="replace"
    )
    if done.returncode:
        lines = re.findall(" broken by (.+)", done.stderr) or done.stderr.splitlines()
        cause = lines[-1] if lines else "no message"
        raise DownloadError(
            f"`pip {' '.join(arguments[:2])}` failed with {cause}", is_transient=True
        )
    return done.stdout
