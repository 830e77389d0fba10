"""Decodes the vectors of a large reply one after another, before an adapter reads the rest.

An adapter decodes a whole body at once. For megabytes this would hold the event loop, so the
vectors are taken out first, whatever the protocol: each array of numbers and each long string in
base64 is decoded on its own, and a short stand-in takes its place. What is left is small, and an
adapter decodes it as it decodes any reply, with the same result or the same error.
"""

import re
import secrets
from collections.abc import Generator, Sequence
from struct import Struct

import msgspec
import numpy as np
import pybase64

from embedway.core.provider_error import ProviderError
from embedway.core.vectors import Vectors
from embedway.http.call import HttpReply

LARGE_BYTES = 2**17
"""Split a body larger than this. An adapter decodes a smaller one in about a millisecond."""
SCAN_BYTES = 2**15
"""How far to look for the next vector in one step."""
SHORT_CHARACTERS = 512
"""The longest string that is not taken for a vector."""
MARK = f"#{secrets.token_hex(8)}"
"""How the stand-in of a string begins. No server knows it, and it is no base64."""

# What may be left without the vectors, for each item and besides. Servers add fields to each vector
# and may repeat the texts. A body with more is refused, because decoding it would take long.
REST_BYTES = (1280, 2**18)
NAMES_AND_BRACKETS = (32, 1024)
ARRAYS = (4, 64)
"""How many arrays of numbers there may be."""

_QUOTE, _BRACKET = ord('"'), ord("[")
# Stops before a long string, and before an array that does not begin with a bracket or a string.
_REST = re.compile(
    rb'(?:[^"\[]++|\[(?=[ \t\r\n]*+["\[{])'
    rb'|"[^"\\]{0,%(n)d}+(?:"|\\.(?:[^"\\]|\\.){0,%(n)d}+"))*+' % {b"n": SHORT_CHARACTERS},
    re.DOTALL,
)
_CHARACTERS = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
_NUMBERS = msgspec.json.Decoder(list[float])
_STRING = msgspec.json.Decoder(str)


class SplitReply(HttpReply, frozen=True, kw_only=True):
    """A reply with stand-ins for its vectors: for the first, `[0]` or the string `MARK` + `0`.

    Any other long string that happens to be base64 has a stand-in too.
    """

    vectors: Sequence[bytes]
    """What was taken out: the numbers of each array as little-endian float32, or the bytes that
    each string encodes."""

    def find(self, value: str | list[float]) -> bytes | None:
        """Return the vector that `value` stands for, or None if `value` was in the body."""
        if isinstance(value, str):
            return self.vectors[int(value[len(MARK) :])] if value.startswith(MARK) else None
        return self.vectors[int(value[0])]  # all arrays of numbers have been taken out

    def check_taken(self, vectors: Vectors) -> None:
        """Require that an adapter has read the vectors themselves, and not their stand-ins.

        Raises:
            TypeError: It has not; it must read them with `floats.stack_vectors`.
        """
        if vectors.shape[-1] == 1 and max(map(len, self.vectors), default=0) > vectors.itemsize:
            raise TypeError("An adapter did not read the vectors with stack_vectors.")


class _Rest:
    """The bytes of a body that are not vectors, up to a limit."""

    def __init__(self, body: bytes, *, items: int, sent_bytes: int) -> None:
        self._body = body
        self._pieces: list[bytes] = []
        self._bytes_left = REST_BYTES[0] * items + REST_BYTES[1] + 2 * sent_bytes
        self._names_left = NAMES_AND_BRACKETS[0] * items + NAMES_AND_BRACKETS[1]
        self._arrays_left = ARRAYS[0] * items + ARRAYS[1]

    def keep(self, start: int, end: int, *, is_text: bool = False) -> None:
        """Keep these bytes of the body; with `is_text`, they are within a string."""
        if start == end:
            return
        piece = self._body[start:end]
        self._pieces.append(piece)
        self._bytes_left -= len(piece)
        if not is_text:
            self._names_left -= piece.count(b":") + piece.count(b"{") + piece.count(b"[")
        if self._bytes_left < 0 or self._names_left < 0:
            raise _malformed_error()

    def count_array(self) -> None:
        """Count an array that may be a vector."""
        self._arrays_left -= 1
        if self._arrays_left < 0:
            raise _malformed_error()

    def stand_in(self, number: int, *, is_string: bool) -> None:
        """Put in the stand-in of a vector."""
        self._pieces.append((f'"{MARK}{number}"' if is_string else f"[{number}]").encode())

    def join(self) -> bytes:
        """Return the rest as one body."""
        return b"".join(self._pieces)


def split(
    reply: HttpReply, *, items: int, width: int, sent_bytes: int
) -> Generator[None, None, SplitReply]:
    """Take the vectors out of the body of `reply`. Yields after each step of less than 1 ms.

    Args:
        reply: A reply with a large body.
        items: How many vectors were asked for.
        width: How many dimensions each may have.
        sent_bytes: The size of the call's body, which the reply may repeat.

    Raises:
        ProviderError: The body holds much besides its vectors, or many more vectors.
    """
    body = reply.body
    text = memoryview(body)
    most_bytes = max(LARGE_BYTES, 32 * width)
    rest = _Rest(body, items=items, sent_bytes=sent_bytes)
    vectors: list[bytes] = []
    at = 0
    while at < len(body):
        found = _REST.match(body, at, at + SCAN_BYTES)
        if found and found.end() > at:
            rest.keep(at, found.end())
            at = found.end()
            if at == len(body) or body[at] not in (_QUOTE, _BRACKET):
                yield
                continue
        is_string = body[at] == _QUOTE
        if not is_string:
            rest.count_array()
        end = body.find(b'"' if is_string else b"]", at + 1, at + most_bytes) + 1
        vector = None
        if end and not (is_string and end - at - 2 <= SHORT_CHARACTERS):
            vector = _decode_string(text[at:end]) if is_string else _decode_array(text[at:end])
        if vector is not None:
            rest.stand_in(len(vectors), is_string=is_string)
            vectors.append(vector)
            at = end
        elif is_string:
            at = yield from _keep_string(rest, body, at)
        else:
            rest.keep(at, at + 1)
            at += 1
        yield
    return SplitReply(
        status=reply.status,
        headers=reply.headers,
        body=rest.join(),
        client_words=reply.client_words,
        vectors=vectors,
    )


def _keep_string(rest: _Rest, body: bytes, at: int) -> Generator[None, None, int]:
    """Keep the string that begins at `at`, and return where it ends."""
    start, at = at, at + 1
    while True:
        found = _CHARACTERS.match(body, at, at + SCAN_BYTES)
        end = found.end() if found else at
        is_ended = end == at or body[end : end + 1] == b'"'
        if is_ended:
            end = min(end + 1, len(body))
        rest.keep(start, end, is_text=True)
        if is_ended:
            return end
        start = at = end
        yield


def _decode_array(text: memoryview) -> bytes | None:
    """Return the numbers of an array as float32, or None if it is not one of numbers only."""
    try:
        values = _NUMBERS.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    try:
        # numpy takes three times as long to read a list, and releases the interpreter's lock.
        return Struct(f"<{len(values)}f").pack(*values)
    except OverflowError:
        with np.errstate(over="ignore"):  # `core.vectors.check_vectors` finds infinities
            return np.array(values).astype("<f4").tobytes()


def _decode_string(text: memoryview) -> bytes | None:
    """Return what a string in base64 encodes, or None if it is none."""
    try:
        if b"\\" not in bytes(text):
            return pybase64.b64decode(text[1:-1], validate=True)
        return pybase64.b64decode(_STRING.decode(text), validate=True)  # .NET escapes the plus
    except (msgspec.MsgspecError, ValueError):
        return None


def _malformed_error() -> ProviderError:
    return ProviderError("malformed", "much that is not a vector", billed="yes")
