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
from embedway.auth.issuer_keys import Fetch, Issuer, IssuerKeys
from embedway.auth.public_keys import MAX_KID_CHARACTERS
from embedway.core.errors import Forbidden, InvalidKey
from embedway.core.keys import Scope

SCOPES: tuple[Scope, ...] = ("embeddings", "usage")
"""The scopes that a token of an outside issuer may have. Anything more takes an API key."""
MAX_PROJECT_CHARACTERS = 64


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
        self,
        issuers: Iterable[Issuer],
        *,
        fetch: Fetch,
        now_s: Callable[[], float],
        known: "IssuerRegistry | None" = None,
    ) -> None:
        """Fetch keys by `fetch`; keep those that the registry `known` has of the same issuer."""
        before = {} if known is None else known._keys  # noqa: SLF001  # of this class
        self._keys: dict[str, IssuerKeys] = {}
        for each in issuers:
            keys = before.get(each.issuer)
            if keys is None or keys.issuer != each:
                keys = IssuerKeys(each, fetch=fetch, now_s=now_s)
            self._keys[each.issuer] = keys

    async def read(self, token: CompactToken) -> IssuerIdentity:
        """Check the signature and claims of `token` and return whom it stands for.

        Does not check its lifetime.

        Raises:
            InvalidKey: No configured issuer issued it for this gateway, or a claim is missing.
            Forbidden: It names no project.
            StorageUnavailable: The issuer's keys cannot be read.
        """
        iss: Any = token.claims.get("iss")
        keys = self._keys.get(iss) if isinstance(iss, str) else None
        if keys is None:
            raise InvalidKey(f"Tokens of this issuer are not accepted here. {CURE}")
        await _check_signature(token, keys)
        issuer, payload = keys.issuer, token.claims
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
        for keys in self._keys.values():
            await keys.aclose()


async def _check_signature(token: CompactToken, keys: IssuerKeys) -> None:
    algorithm, accepted = token.algorithm, keys.issuer.algorithms
    if algorithm not in accepted:
        raise InvalidKey(
            f"This token's algorithm is not accepted from its issuer. Accepted: "
            f"{', '.join(accepted)}."
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
