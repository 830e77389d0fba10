"""Tokens that this gateway signs: short-lived, of one key, with no more rights than that key.

Owns how they look and how they are signed. A token names its key, which is looked up again each
time it is used; so whatever is taken from the key is taken from the token.
"""

import base64
import hashlib
import json
import secrets
from collections.abc import Sequence
from typing import Any, cast

import jwt
import msgspec

from embedway.auth import claims
from embedway.auth.claims import Lifetime
from embedway.auth.compact import CURE, Token
from embedway.core.errors import InvalidKey
from embedway.core.keys import SCOPES, Scope

ISSUER = "embedway"
AUDIENCE = "embedway"
_ALGORITHM = "HS256"
_HEADER = {"alg": _ALGORITHM, "typ": "JWT"}


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """What a token of ours says, once its signature is checked."""

    key_id: str
    secret_id: str
    """The secret of that key that it was made with."""
    scopes: frozenset[Scope]
    end_user: str | None
    """That it was made for; None of a token for whoever holds the key."""
    lifetime: Lifetime


class Tokens:
    """Signs and checks."""

    def __init__(self, *, pepper: bytes, audiences: Sequence[str] = (AUDIENCE,)) -> None:
        """Takes what keys are hashed with, and the audiences it makes and accepts tokens for."""
        self.audiences = tuple(audiences)
        # Of the same secret as the digests of keys, and of no use for those, nor the other way.
        self._key = hashlib.blake2b(
            b"tokens", key=pepper, person=b"embedway-jwt", digest_size=32
        ).digest()
        self._algorithm = jwt.get_algorithm_by_name(_ALGORITHM)

    def issue(
        self,
        key_id: str,
        *,
        secret_id: str,
        scopes: Sequence[Scope],
        end_user: str | None,
        audience: str,
        now_ms: int,
        expires_ms: int,
    ) -> str:
        """A new token; of the times, in milliseconds since 1970-01-01 UTC, it has the seconds."""
        told = {
            "iss": ISSUER,
            "aud": [audience],
            **({} if end_user is None else {"sub": end_user}),
            "iat": now_ms // 1000,
            "exp": expires_ms // 1000,
            "jti": secrets.token_urlsafe(12),
            "key": key_id,
            "secret": secret_id,
            "permissions": list(scopes),
        }
        signed = b".".join(map(_encoded, (_json(_HEADER), _json(told))))
        return b".".join((signed, _encoded(self._algorithm.sign(signed, self._key)))).decode()

    def read(self, token: Token) -> Grant:
        """What `token`, whose `iss` is ours, says.

        Raises:
            InvalidKey: It was not signed here, or not for here.
        """
        signed_here = token.algorithm == _ALGORITHM and self._algorithm.verify(
            token.signed, self._key, token.signature
        )
        if not signed_here:
            raise InvalidKey(f"This token was not signed by this gateway. {CURE}")
        told = token.claims
        claims.check_audience(told, self.audiences)
        permissions = cast("list[Any]", told["permissions"])
        return Grant(
            key_id=told["key"],
            secret_id=told.get("secret", ""),
            scopes=frozenset(each for each in SCOPES if each in permissions),
            end_user=claims.end_user(told, "sub") if "sub" in told else None,
            lifetime=claims.lifetime({"exp": told["exp"]}, leeway_s=0),
        )


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _encoded(part: bytes) -> bytes:
    return base64.urlsafe_b64encode(part).rstrip(b"=")
