"""Tokens of outside issuers (OpenID Connect): which are accepted, and for whom.

Owns what an administrator may say of an issuer and what of its tokens is believed. A token is never
asked how it is to be checked: the issuer's settings and its published keys decide.
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
"""The scopes that a token of an outside issuer may have. More takes an API key."""
MAX_PROJECT_CHARACTERS = 64


class Issuer(msgspec.Struct, frozen=True, kw_only=True):
    """An outside issuer, as the administrator configures it."""

    name: str
    issuer: str
    """The exact `iss` of its tokens."""
    audiences: tuple[str, ...]
    """Its tokens must be for one of these."""
    jwks_url: str | None = None
    """The address of its keys; None to find it in its OpenID configuration."""
    algorithms: tuple[str, ...] = ("RS256", "ES256")
    project: str | None = None
    """The project of its tokens; None if each token names one in `project_claim`."""
    project_claim: str | None = None
    user_claim: str = "sub"
    """The claim that names the end user."""
    scopes: tuple[Scope, ...] = ("embeddings",)
    """The scopes of its tokens or, with `scopes_claim`, the most they may have."""
    scopes_claim: str | None = None
    leeway_s: float = 30


class IssuerIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """Whom a token of an outside issuer stands for."""

    issuer: str
    """The name of its section in the settings."""
    project_id: str
    end_user: str
    scopes: frozenset[Scope]
    lifetime: TokenLifetime


class IssuerRegistry:
    """Every configured issuer, with its keys."""

    def __init__(
        self, issuers: Iterable[Issuer], *, fetch: Fetch, now_s: Callable[[], float]
    ) -> None:
        def keys_of(issuer: Issuer) -> IssuerKeys:
            url = issuer.jwks_url
            return IssuerKeys(
                issuer.name, issuer=issuer.issuer, jwks_url=url, fetch=fetch, now_s=now_s
            )

        self._known = {each.issuer: (each, keys_of(each)) for each in issuers}

    async def read(self, token: CompactToken) -> IssuerIdentity:
        """Check who issued `token`, and read whom it stands for. Its lifetime is not checked.

        Raises:
            InvalidKey: None of these issued it for this gateway, or it lacks a claim.
            Forbidden: It names no project.
            StorageUnavailable: The issuer's keys cannot be had.
        """
        named: Any = token.claims.get("iss")
        known = self._known.get(named) if isinstance(named, str) else None
        if known is None:
            raise InvalidKey(f"This token is of no issuer that is accepted here. {CURE}")
        issuer, keys = known
        await _check_signature(token, issuer, keys)
        told = token.claims
        claims.check_audience(told, issuer.audiences)
        return IssuerIdentity(
            issuer=issuer.name,
            project_id=_project(told, issuer),
            end_user=claims.read_end_user(told, issuer.user_claim),
            scopes=_scopes(told, issuer),
            lifetime=claims.read_lifetime(told, leeway_s=issuer.leeway_s),
        )

    async def aclose(self) -> None:
        """Cancel fetches of keys."""
        for _, keys in self._known.values():
            await keys.aclose()


async def _check_signature(token: CompactToken, issuer: Issuer, keys: IssuerKeys) -> None:
    algorithm = token.algorithm
    if algorithm not in issuer.algorithms:
        raise InvalidKey(
            f"This token is signed by an algorithm that is not accepted of its issuer. Accepted: "
            f"{', '.join(issuer.algorithms)}."
        )
    kid: Any = token.header.get("kid")
    if not (kid is None or (isinstance(kid, str) and len(kid) <= MAX_KID_CHARACTERS)):
        raise InvalidKey(f"The token's 'kid' is not a short string. {CURE}")
    key = await keys.find(kid, algorithm)
    if key is None:
        raise InvalidKey(f"This token is signed with a key that its issuer does not have. {CURE}")
    if not key.verify(token.signed, token.signature, algorithm=algorithm):
        raise InvalidKey(f"This token's signature is wrong. {CURE}")


def _project(told: Mapping[str, Any], issuer: Issuer) -> str:
    if issuer.project_claim is None:
        return cast("str", issuer.project)
    value = told.get(issuer.project_claim)
    # Of characters that every database takes.
    if (
        not isinstance(value, str)
        or not value.isascii()
        or not value.isprintable()
        or not 1 <= len(value) <= MAX_PROJECT_CHARACTERS
    ):
        raise Forbidden(
            f"This token names no project in its claim {issuer.project_claim!r}. Have its issuer "
            "put one there."
        )
    return value


def _scopes(told: Mapping[str, Any], issuer: Issuer) -> frozenset[Scope]:
    if issuer.scopes_claim is None:
        return frozenset(issuer.scopes)
    value = told.get(issuer.scopes_claim)
    given = value.split(" ") if isinstance(value, str) else value
    if not isinstance(given, list):
        return frozenset()
    return frozenset(each for each in issuer.scopes if each in given)
