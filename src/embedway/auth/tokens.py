"""Signs and checks the gateway's own tokens: short-lived, with no more rights than their key.

A token names its key, which is looked up each time the token is used, so a right that is taken from
the key is taken from its tokens too.
"""

import hashlib
import secrets
from collections.abc import Sequence
from typing import Any, cast

import jwt
import msgspec

from embedway.auth import claims
from embedway.auth.claims import TokenLifetime
from embedway.auth.compact import CURE, CompactToken
from embedway.core.errors import InvalidKey
from embedway.core.keys import SCOPES, Scope

ISSUER = "embedway"
AUDIENCE = "embedway"
_ALGORITHM = "HS256"


class TokenGrant(msgspec.Struct, frozen=True, kw_only=True):
    """What a token of ours says, once its signature is checked."""

    key_id: str
    secret_id: str
    """The secret of the key that the token was made with."""
    scopes: frozenset[Scope]
    end_user: str | None
    """The end user it was made for; None if it is for whoever holds the key."""
    lifetime: TokenLifetime


class GatewayTokens:
    """Signs and checks tokens of this gateway."""

    def __init__(self, *, pepper: bytes, audiences: Sequence[str] = (AUDIENCE,)) -> None:
        """Derive the signing key from the pepper, for tokens of these audiences."""
        self.audiences = tuple(audiences)
        # `person` keeps this key apart from digests of API keys, which use the same pepper.
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
        """Sign a token. Times are milliseconds since 1970-01-01 UTC; the token holds seconds."""
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
        return jwt.encode(told, self._key, algorithm=_ALGORITHM)

    def read(self, token: CompactToken) -> TokenGrant:
        """Check the signature and audience of a token whose `iss` is ours, and read it.

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
        return TokenGrant(
            key_id=told["key"],
            secret_id=told.get("secret", ""),
            scopes=frozenset(each for each in SCOPES if each in permissions),
            end_user=claims.read_end_user(told, "sub") if "sub" in told else None,
            lifetime=claims.read_lifetime({"exp": told["exp"]}, leeway_s=0),
        )
