"""Parses JSON Web Tokens in compact form, more strictly than PyJWT does (docs/decisions/0014).

Do not trust any part of a token before its signature is checked.
"""

import base64
import json
import re
from collections.abc import Mapping
from typing import Any, cast

import msgspec

from embedway.core.errors import InvalidKey

MAX_BYTES = 8192

_FORM = re.compile(rb"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
# Headers that choose the key, change what is checked, or mark encrypted or nested tokens.
_REFUSED = frozenset({"jku", "jwk", "x5u", "x5c", "crit", "b64", "cty", "enc", "zip", "epk"})
# Tokens for other purposes, such as logout tokens, have other types (RFC 8725, 3.11).
_TYPES = frozenset({"jwt", "at+jwt", "application/at+jwt"})
CURE = "Get a new token from whoever issues them."


class CompactToken(msgspec.Struct, frozen=True, kw_only=True):
    """A parsed token. Its signature has not been checked."""

    header: Mapping[str, Any]
    claims: Mapping[str, Any]
    signing_input: bytes
    """The bytes that the signature covers."""
    signature: bytes

    @property
    def algorithm(self) -> str:
        """The algorithm that the token's header names."""
        return cast("str", self.header["alg"])


def is_compact_token(token: bytes) -> bool:
    """Return whether `token` has the form of a token, without decoding it."""
    return len(token) <= MAX_BYTES and _FORM.fullmatch(token) is not None


def parse_token(token: bytes) -> CompactToken:
    """Parse a token that `is_compact_token` accepts. Raise `InvalidKey` if it is malformed."""
    signed, _, signature = token.rpartition(b".")
    header, _, claims = signed.partition(b".")
    parsed = CompactToken(
        header=_json_object(header, "header"),
        claims=_json_object(claims, "claims"),
        signing_input=signed,
        signature=_decode(signature, "signature"),
    )
    if not isinstance(parsed.header.get("alg"), str):
        raise InvalidKey(f"The token's header does not name its algorithm. {CURE}")
    for name in sorted(_REFUSED & parsed.header.keys()):
        raise InvalidKey(f"The token's header has {name!r}, which is not accepted. {CURE}")
    kind: Any = parsed.header.get("typ", "jwt")
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        raise InvalidKey(f"The token's header has a 'typ' that is not accepted. {CURE}")
    return parsed


def _decode(part: bytes, what: str) -> bytes:
    try:
        decoded = base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4))
    except ValueError:
        decoded = b""
    # Decoding drops unused bits of the last character. Refuse them: a token has one spelling.
    if base64.urlsafe_b64encode(decoded).rstrip(b"=") != part:
        raise InvalidKey(f"The token's {what} is not base64url. {CURE}")
    return decoded


def _json_object(part: bytes, what: str) -> dict[str, Any]:
    try:
        value = json.loads(
            _decode(part, what).decode(), object_pairs_hook=_unique, parse_constant=_no_number
        )
    except (ValueError, RecursionError):
        raise InvalidKey(f"The token's {what} is not JSON, or repeats a member. {CURE}") from None
    if not isinstance(value, dict):
        raise InvalidKey(f"The token's {what} is not a JSON object. {CURE}")
    return cast("dict[str, Any]", value)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("twice")
    return value


def _no_number(name: str) -> None:
    raise ValueError(name)
