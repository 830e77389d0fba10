"""Describes one HTTP call and its reply, as plain values."""

from collections.abc import Mapping
from contextvars import ContextVar
from http import HTTPStatus

import msgspec

trace_headers: ContextVar[Mapping[str, str] | None] = ContextVar("trace_headers", default=None)
"""The headers that continue the request's trace, for servers that the administrator declared; None
if the request is not traced."""


class HttpCall(msgspec.Struct, frozen=True, kw_only=True):
    """One call, relative to the provider's base URL, without credentials."""

    path: str
    """The path as it goes on the wire, percent-encoded; may include a query."""
    body: bytes = b""
    method: str = "POST"
    headers: Mapping[str, str] = {}


class HttpReply(msgspec.Struct, frozen=True, kw_only=True):
    """The reply to a call, decompressed."""

    status: int
    headers: Mapping[str, str]
    """The headers; look them up in lower case."""
    body: bytes
    client_words: frozenset[str] = frozenset()
    """The words in the fields that the client added, in lower case."""

    @property
    def is_success(self) -> bool:
        """Whether the status is 2xx."""
        return HTTPStatus.OK <= self.status < HTTPStatus.MULTIPLE_CHOICES

    @property
    def is_redirect(self) -> bool:
        """Whether the status is 3xx."""
        return HTTPStatus.MULTIPLE_CHOICES <= self.status < HTTPStatus.BAD_REQUEST


def join_url(base_url: str, path: str) -> str:
    """Return `base_url` with `path` added to its path, and with the queries of both."""
    base, _, query = base_url.partition("?")
    url = base.rstrip("/") + path
    if not query:
        return url
    return f"{url}{'&' if '?' in path else '?'}{query}"
