"""Downloads a wheel, with the index, logins, proxies and certificates that pip is configured for.

pip says where the wheel is. We download it, because pip keeps nothing of a download whose process
ends, and leave to pip what a server does not give us. No index's address is known here.
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
"""Called with the bytes held so far and, where the server says it, the bytes there will be."""

_CHUNK_BYTES = 256 * 1024
_STALL_TIMEOUT_S = 30
_PAUSES_S = (0.2, 1, 3, 8)
"""The pauses before tries that follow one without progress; after the last we give up."""
_PASSING_STATUSES = frozenset({408, 429, 500, 502, 503, 504})
_URL = re.compile(r"(?:https?|file)://[^\s'\"<>]+")


class DownloadError(Exception):
    """A download failed; the message says how."""

    def __init__(self, message: str, *, may_pass: bool) -> None:
        super().__init__(message)
        self.may_pass = may_pass
        """Whether another try may succeed."""


def download_wheel(wheel: WheelSource, part: Path, progress: Progress | None) -> None:
    """Bring the wheel to the file `part`, and continue what is there of it.

    The file may end up with another digest than the wheel's.

    Raises:
        DownloadError: Neither we nor pip could download it.
    """
    options = _pip_options()
    answered = False
    for url in _addresses(wheel):
        with contextlib.suppress(DownloadError):
            resumed = _complete(_opener(options), url, part, progress)
            if resumed and not _is_whole(part, wheel):
                part.write_bytes(b"")  # the bytes held before may be the wrong ones
                _complete(_opener(options), url, part, progress)
            if _is_whole(part, wheel):
                return
            answered = True
    if not answered:
        with tempfile.TemporaryDirectory(dir=part.parent) as folder:
            pin = f"{wheel.name}=={wheel.version}"
            _pip("download", "--no-deps", "--only-binary", ":all:", "--dest", folder, pin)
            next(Path(folder).glob("*.whl")).replace(part)


def is_named_as(wheel: WheelSource, file_name: str) -> bool:
    """Whether a file of this name is the wheel, whatever its tags."""
    try:
        name, version, *_ = parse_wheel_filename(file_name)
    except InvalidWheelFilename:
        return False
    return (name, version) == (canonicalize_name(wheel.name), Version(wheel.version))


def _is_whole(part: Path, wheel: WheelSource) -> bool:
    with part.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == wheel.sha256


def _complete(opener: OpenerDirector, url: str, part: Path, progress: Progress | None) -> bool:
    """Bring the file to its end, over drops and pauses; whether several answers are in it."""
    part.touch()
    most, failures = part.stat().st_size, 0
    while True:
        try:
            return _receive(opener, url, part, progress) > 0
        except DownloadError as error:
            held = part.stat().st_size
            failures = 0 if held > most else failures + 1
            if not error.may_pass or failures > len(_PAUSES_S):
                raise
            most = max(most, held)
        time.sleep(_PAUSES_S[max(failures - 1, 0)])


def _receive(opener: OpenerDirector, url: str, part: Path, progress: Progress | None) -> int:
    """Add one answer's bytes to the file; the offset they start at."""
    held = part.stat().st_size
    with _open(opener, url, held) as answer:
        # Any other status: no ranges here, or a local file.
        start = held if answer.status == HTTPStatus.PARTIAL_CONTENT else 0
        if start and not answer.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            raise DownloadError("answered another range than was asked for", may_pass=False)
        length = answer.headers.get("Content-Length")
        done, total = start, None if length is None else start + int(length)
        with part.open("ab" if start else "wb") as file:
            while chunk := _read(answer):
                file.write(chunk)
                done += len(chunk)
                if progress:
                    progress(done, total)
    if total is not None and done < total:
        raise DownloadError(f"broke off after {done} of {total} bytes", may_pass=True)
    return start


def _open(opener: OpenerDirector, url: str, held: int) -> HTTPResponse:
    """The answer to a request for all bytes from `held` on."""
    headers = {"User-Agent": "embedway"} | ({"Range": f"bytes={held}-"} if held else {})
    try:
        return opener.open(Request(url, headers=headers), timeout=_STALL_TIMEOUT_S)
    except HTTPError as error:
        error.close()
        if held and error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return _open(opener, url, 0)
        may_pass = error.code in _PASSING_STATUSES
        raise DownloadError(f"answered {error.code} {error.reason}", may_pass=may_pass) from error
    except (OSError, HTTPException) as error:
        reason = error.reason if isinstance(error, URLError) else error
        # A certificate stays wrong; the end of a connection, which is an SSLError too, may pass.
        wrong = isinstance(reason, ssl.SSLError) and not isinstance(reason, ssl.SSLEOFError)
        raise DownloadError(f"could not be reached: {reason}", may_pass=not wrong) from error


def _read(answer: HTTPResponse) -> bytes:
    try:
        return answer.read1(_CHUNK_BYTES)
    except (OSError, HTTPException) as error:  # caught here, where it cannot be the disk's
        raise DownloadError(f"broke off: {error!r}", may_pass=True) from error


def _pip_options() -> dict[str, str]:
    """The options that pip's files and environment set, by name."""
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
        raise DownloadError(f"{bundle!r}: {error}", may_pass=False) from error
    proxy = options.get("proxy")
    proxies = ProxyHandler({"http": proxy, "https": proxy} if proxy else None)
    return build_opener(proxies, HTTPSHandler(context=context))


def _addresses(wheel: WheelSource) -> list[str]:
    """Every address of the wheel that pip sees, local files first, without logins.

    `pip index versions` reads the index pages only, while `pip download`, `pip lock` and
    `pip install --dry-run` fetch the whole wheel before they name its address. Its log holds all
    links at any verbosity; only addresses are picked out of it, not pip's wording.
    """
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "pip.log")
        log.touch()
        with contextlib.suppress(DownloadError):  # pip may not want what it found; we do
            _pip("index", "versions", wheel.name, "--log", str(log))
        links: list[str] = _URL.findall(log.read_text("utf-8", "replace"))
    found: dict[str, None] = {}
    for link in links:
        parts = urlsplit(link.rstrip("),;:"))
        if is_named_as(wheel, unquote(parts.path).rpartition("/")[2]):
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
        raise DownloadError(
            f"`pip {' '.join(arguments[:2])}` failed with {said[-1]}", may_pass=True
        )
    return done.stdout
