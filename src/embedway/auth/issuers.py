"""Accepts tokens of outside issuers (OpenID Connect) and reads whom they stand for.

Only the issuer's settings and its published keys decide how a token is checked. The token itself
has no say.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

import msgspec

from embedway.auth import claims
from embedway.auth.claims import TokenLifetime
from embedway.auth.compact import CURE, CompactToken
from embedway.auth.issuer_keys import Fetch, IssuerKeys
from embedway.auth.public_keys import MAX_KID_CHARACTERS
from embedway.core.errors import Forbidden, InvalidKey
from embedway.core.keys import Scope

SCOPES: tuple[Scope, ...] = ("embeddings", "usage")
"""The scopes that a token of an outside issuer may have. Anything more takes an API key."""
MAX_PROJECT_CHARACTERS = 64


class Issuer(msgspec.Struct, frozen=True, kw_only=True):
    """An outside issuer, as configured by the administrator."""

    name: str
    issuer: str
    """The exact `iss` of its tokens."""
    audiences: tuple[str, ...]
    """The accepted audiences; a token must name one of them."""
    jwks_url: str | None = None
    """The URL of its keys; None to look it up in its OpenID configuration."""
    algorithms: tuple[str, ...] = ("RS256", "ES256")
    project: str | None = None
    """The project of its tokens; None if each token names one in `project_claim`."""
    project_claim: str | None = None
    user_claim: str = "sub"
    """The claim that names the end user."""
    scopes: tuple[Scope, ...] = ("embeddings",)
    """The scopes of its tokens. With `scopes_claim`, the most they may have."""
    scopes_claim: str | None = None
    leeway_s: float = 30


class IssuerIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """The end user and project that a token of an outside issuer stands for."""

    issuer: str
    """The name of the issuer's section in the settings."""
    project_id: str
    end_user: str
    scopes: frozenset[Scope]
    lifetime: TokenLifetime


class IssuerRegistry:
    """The configured issuers with their keys."""

    def __init__(
        self, issuers: Iterable[Issuer], *, fetch: Fetch, now_s: Callable[[], float]
    ) -> None:
        def keys_of(issuer: Issuer) -> IssuerKeys:
            url = issuer.jwks_url
            return IssuerKeys(
                issuer.name, issuer=issuer.issuer, jwks_url=url, fetch=fetch, now_s=now_s
            )

        self._issuers = {each.issuer: (each, keys_of(each)) for each in issuers}

    async def read(self, token: CompactToken) -> IssuerIdentity:
        """Check the signature and claims of `token` and return whom it stands for.

        Does not check its lifetime.

        Raises:
            InvalidKey: No configured issuer issued it for this gateway, or a claim is missing.
            Forbidden: It names no project.
            StorageUnavailable: The issuer's keys cannot be read.
        """
        iss: Any = token.claims.get("iss")
        entry = self._issuers.get(iss) if isinstance(iss, str) else None
        if entry is None:
            raise InvalidKey(f"Tokens of this issuer are not accepted here. {CURE}")
        issuer, keys = entry
        await _check_signature(token, issuer, keys)
        payload = token.claims
        claims.check_audience(payload, issuer.audiences)
        return IssuerIdentity(
            issuer=issuer.name,
            project_id=_project(payload, issuer),
            end_user=claims.read_end_user(payload, issuer.user_claim),
            scopes=_scopes(payload, issuer),
            lifetime=claims.read_lifetime(payload, leeway_s=issuer.leeway_s),
        )

    async def aclose(self) -> None:
        """Cancel all fetches of keys."""
        for _, keys in self._issuers.values():
            await keys.aclose()


async def _check_signature(token: CompactToken, issuer: Issuer, keys: IssuerKeys) -> None:
    algorithm = token.algorithm
    if algorithm not in issuer.algorithms:
        raise InvalidKey(
            f"This token's algorithm is not accepted from its issuer. Accepted: "
            f"{', '.join(issuer.algorithms)}."
        )
    kid: Any = token.header.get("kid")
    if not (kid is None or (isinstance(kid, str) and len(kid) <= MAX_KID_CHARACTERS)):
        raise InvalidKey(f"The token's 'kid' is not a short string. {CURE}")
    key = await keys.find(kid, algorithm)
    if key is None:
        raise InvalidKey(f"This token is signed with a key that its issuer does not have. {CURE}")
    if not key.verify(token.signing_input, token.signature, algorithm=algorithm):
        raise InvalidKey(f"This token's signature is wrong. {CURE}")


def _project(payload: Mapping[str, Any], issuer: Issuer) -> str:
    if issuer.project_claim is None:
        return cast("str", issuer.project)
    value = payload.get(issuer.project_claim)
    # Allow only characters that every database accepts.
    if (
        not isinstance(value, str)
        or not value.isascii()
        or not value.isprintable()
        or not 1 <= len(value) <= MAX_PROJECT_CHARACTERS
    ):
        raise Forbidden(
            f"This token names no project in its claim {issuer.project_claim!r}. Have its issuer "
            "add one."
        )
    return value


def _scopes(payload: Mapping[str, Any], issuer: Issuer) -> frozenset[Scope]:
    if issuer.scopes_claim is None:
        return frozenset(issuer.scopes)
    value = payload.get(issuer.scopes_claim)
    scopes = value.split(" ") if isinstance(value, str) else value
    if not isinstance(scopes, list):
        return frozenset()
    return frozenset(each for each in issuer.scopes if each in scopes)
