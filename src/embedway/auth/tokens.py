"""Signs and checks the gateway's own tokens: short-lived, and with no more rights than their key.

A token names its key, which is looked up on each use. A right that the key loses, its tokens lose
too.
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
    """The content of one of the gateway's own tokens. Its signature has been checked."""

    key_id: str
    secret_id: str
    """The id of the secret that the token was made with."""
    scopes: frozenset[Scope]
    end_user: str | None
    """The end user the token is for; None if it is for the key's own client."""
    lifetime: TokenLifetime


class GatewayTokens:
    """Signs and checks the gateway's own tokens."""

    def __init__(self, *, pepper: bytes, audiences: Sequence[str] = (AUDIENCE,)) -> None:
        """Derive the signing key from the pepper. Tokens for any of `audiences` are accepted."""
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
        """Return a signed token. Arguments are in ms since 1970-01-01 UTC; claims in seconds."""
        payload = {
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
        return jwt.encode(payload, self._key, algorithm=_ALGORITHM)

    def read(self, token: CompactToken) -> TokenGrant:
        """Check the signature and audience of a token whose `iss` is ours, and return its content.

        Raises:
            InvalidKey: This gateway did not sign it, or it is for another audience.
        """
        signed_here = token.algorithm == _ALGORITHM and self._algorithm.verify(
            token.signing_input, self._key, token.signature
        )
        if not signed_here:
            raise InvalidKey(f"This token was not signed by this gateway. {CURE}")
        payload = token.claims
        claims.check_audience(payload, self.audiences)
        permissions = cast("list[Any]", payload["permissions"])
        return TokenGrant(
            key_id=payload["key"],
            secret_id=payload.get("secret", ""),
            scopes=frozenset(each for each in SCOPES if each in permissions),
            end_user=claims.read_end_user(payload, "sub") if "sub" in payload else None,
            lifetime=claims.read_lifetime({"exp": payload["exp"]}, leeway_s=0),
        )
