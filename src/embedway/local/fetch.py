"""One address to one file, over networks that break off.

A file is continued where an earlier try left it, and is right only once it has the digest asked
for. This module must not know what is in it. What a server does not give to everyone is refused.
"""

import hashlib
import ssl
import time
from collections.abc import Callable
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import OpenerDirector, Request

Progress = Callable[[int, int | None], None]
"""Called with the bytes held so far and, where the server says it, the bytes there will be."""

_CHUNK_BYTES = 256 * 1024
_STALL_TIMEOUT_S = 30
_PAUSES_S = (0.2, 1, 3, 8)
"""Before each new try that follows one without gain; after the last we give up."""
_PASSING_STATUSES = frozenset({408, 429, 500, 502, 503, 504})


class UnavailableError(Exception):
    """The network failed in a way that may pass; the message says how."""


class RefusedError(Exception):
    """The server does not give us the file, though it might to a client that can do more."""


def fetch(
    url: str, part: Path, *, opener: OpenerDirector, sha256: str, progress: Progress | None
) -> bool:
    """Brings the file to its end, over drops and pauses; whether it has the digest then.

    Nothing in it is believed before, so that it may be continued from any address.

    Raises:
        UnavailableError: Several tries in a row gained nothing.
        RefusedError: More tries are of no use.
    """
    part.touch()
    stitched = _complete(opener, url, part, progress)
    if stitched and not _right(part, sha256):
        part.write_bytes(b"")  # the bytes held before may be the wrong ones
        _complete(opener, url, part, progress)
    return _right(part, sha256)


def _right(part: Path, sha256: str) -> bool:
    with part.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == sha256


def _complete(opener: OpenerDirector, url: str, part: Path, progress: Progress | None) -> bool:
    """Brings the file to its end; whether bytes of several answers are in it."""
    most, failures = part.stat().st_size, 0
    while True:
        try:
            return _receive(opener, url, part, progress) > 0
        except UnavailableError as error:
            held = part.stat().st_size
            failures = 0 if held > most else failures + 1
            if failures > len(_PAUSES_S):  # a query may be a signature, so it is not shown
                raise UnavailableError(f"{url.partition('?')[0]!r} {error}") from error
            most = max(most, held)
        time.sleep(_PAUSES_S[max(failures - 1, 0)])


def _receive(opener: OpenerDirector, url: str, part: Path, progress: Progress | None) -> int:
    """Adds one answer's bytes to the file; the offset they start at."""
    held = part.stat().st_size
    with _open(opener, url, held) as answer:
        # Any other status: no ranges here, or a local file.
        start = held if answer.status == HTTPStatus.PARTIAL_CONTENT else 0
        if start and not answer.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            raise RefusedError("answered another range than was asked for")
        length = answer.headers.get("Content-Length")
        done, total = start, None if length is None else start + int(length)
        with part.open("ab" if start else "wb") as file:
            while chunk := _read(answer):
                file.write(chunk)
                done += len(chunk)
                if progress:
                    progress(done, total)
    if total is not None and done < total:
        raise UnavailableError(f"broke off after {done} of {total} bytes")
    return start


def _open(opener: OpenerDirector, url: str, held: int) -> HTTPResponse:
    """The answer to a request for all bytes from `held` on."""
    headers = {"User-Agent": "embedway"} | ({"Range": f"bytes={held}-"} if held else {})
    request = Request(url, headers=headers)
    try:
        return opener.open(request, timeout=_STALL_TIMEOUT_S)
    except HTTPError as error:
        error.close()
        if held and error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return _open(opener, url, 0)
        kind = UnavailableError if error.code in _PASSING_STATUSES else RefusedError
        raise kind(f"answered {error.code} {error.reason}") from error
    except (OSError, HTTPException) as error:
        reason = error.reason if isinstance(error, URLError) else error
        # Not the one that says that a connection broke off.
        refused = isinstance(reason, ssl.SSLError) and not isinstance(reason, ssl.SSLEOFError)
        kind = RefusedError if refused else UnavailableError
        raise kind(f"could not be reached: {reason}") from error


def _read(answer: HTTPResponse) -> bytes:
    try:
        return answer.read1(_CHUNK_BYTES)
    except (OSError, HTTPException) as error:  # caught here, where it cannot be the disk's
        raise UnavailableError(f"broke off: {error!r}") from error
