"""Collects the body of a reply up to a limit, and decompresses it on the way."""

import zlib
from http import HTTPStatus

from embedway.core.provider_error import ProviderError

MAX_PACKED_ERROR_BYTES = 2**16
"""The most decompressed bytes to read of a compressed error reply."""


class BodyReader:
    """The body of one reply, as it arrives."""

    __slots__ = ("_decompressor", "_left", "_max_bytes", "_pieces")

    def __init__(self, encoding: str, *, max_bytes: int) -> None:
        """Collect up to `max_bytes`, decompressed.

        Raises:
            ProviderError: The encoding was not requested and is unknown.
        """
        self._decompressor = None
        if encoding in {"gzip", "x-gzip", "deflate"}:
            self._decompressor = zlib.decompressobj(zlib.MAX_WBITS | 32)
        elif encoding != "identity":
            raise _malformed("a content encoding that was not requested")
        self._pieces: list[bytes] = []
        self._left = self._max_bytes = max_bytes

    def add(self, piece: bytes) -> None:
        """Add a piece as it came.

        Raises:
            ProviderError: The body is too large, or its compression is broken.
        """
        if self._decompressor:
            try:
                piece = self._decompressor.decompress(piece, self._left + 1)
            except zlib.error:
                raise _malformed("broken compression") from None
        self._left -= len(piece)
        if self._left < 0:
            raise _malformed(f"more than {self._max_bytes} bytes")
        self._pieces.append(piece)

    def finish(self) -> list[bytes]:
        """Return the body in pieces.

        Raises:
            ProviderError: Its compression is broken.
        """
        if self._decompressor and not self._decompressor.eof:
            raise _malformed("broken compression")
        return self._pieces


def is_packed_error(status: int, encoding: str) -> bool:
    """Return whether a reply is an error whose body is compressed.

    Its status says enough, so a body that cannot be read counts as empty.
    """
    return status >= HTTPStatus.BAD_REQUEST and encoding != "identity"


def _malformed(reason: str) -> ProviderError:
    return ProviderError("malformed", reason, billed="yes")
