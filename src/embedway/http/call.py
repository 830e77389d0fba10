"""Describes one HTTP call and its reply, as plain values."""

from collections.abc import Mapping
from http import HTTPStatus

import msgspec


class HttpCall(msgspec.Struct, frozen=True, kw_only=True):
    """One call, relative to the provider's base URL, without credentials."""

    path: str
    """As it goes on the wire, percent-encoded; may carry a query."""
    body: bytes = b""
    method: str = "POST"
    headers: Mapping[str, str] = {}


class HttpReply(msgspec.Struct, frozen=True, kw_only=True):
    """What came back, decompressed."""

    status: int
    headers: Mapping[str, str]
    """Asked for in lower case."""
    body: bytes
    clients_words: frozenset[str] = frozenset()
    """What the client named in fields of its own, word by word, in lower case."""

    @property
    def ok(self) -> bool:
        """Whether the status says so: 2xx."""
        return HTTPStatus.OK <= self.status < HTTPStatus.MULTIPLE_CHOICES

    @property
    def redirect(self) -> bool:
        """Whether it sends the caller elsewhere: 3xx."""
        return HTTPStatus.MULTIPLE_CHOICES <= self.status < HTTPStatus.BAD_REQUEST


def join_url(base_url: str, path: str) -> str:
    """The address of a call: `path` after the path of `base_url`, the queries of both behind it."""
    place, _, query = base_url.partition("?")
    url = place.rstrip("/") + path
    if not query:
        return url
    return f"{url}{'&' if '?' in path else '?'}{query}"
