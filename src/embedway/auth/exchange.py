"""Issues tokens in exchange for keys, for one end user or for the key's own client.

A token never has more rights than its key, nor a scope that could gain it more.
"""

from collections.abc import Sequence
from typing import cast

import msgspec

from embedway.auth import rights
from embedway.auth.claims import END_USER
from embedway.auth.tokens import GatewayTokens
from embedway.core.errors import Forbidden, InvalidRequest, quote_value
from embedway.core.keys import Caller, Scope
from embedway.organization import key_secret

END_USER_SCOPES: tuple[Scope, ...] = ("embeddings", "usage")
"""The scopes that a token for an end user may have."""
CLIENT_SCOPES: tuple[Scope, ...] = (*END_USER_SCOPES, "on_behalf_of")
"""The scopes that a token for a client has, if its key has them."""
DEFAULT_LIFETIME_S = 3600
LIFETIMES_S = range(300, 2_592_001)


class IssuedToken(msgspec.Struct, frozen=True):
    """A new token."""

    token: str
    expires_ms: int
    """When the token expires, in ms since 1970-01-01 UTC. Never later than its key."""


class TokenRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request for an end user's token."""

    audience: str
    end_user: str
    lifetime_s: int = DEFAULT_LIFETIME_S
    permissions: Sequence[str] = ("embeddings",)


def issue_for_end_user(
    caller: Caller, request: TokenRequest, *, tokens: GatewayTokens, now_ms: int
) -> IssuedToken:
    """Issue a token for one of the caller's end users. The caller must have sent a key.

    Raises:
        Forbidden: The key may not issue such tokens, or not with these permissions.
        InvalidRequest: A field is out of range.
    """
    rights.require_scope(caller, "tokens")
    if request.audience not in tokens.audiences:
        raise InvalidRequest(
            f"'audience' is {quote_value(request.audience)}; tokens are made for "
            f"{', '.join(map(quote_value, tokens.audiences))}. Use one of these, or "
            "add yours to the setting token_audiences.",
            param="audience",
        )
    if not END_USER.fullmatch(request.end_user):
        raise InvalidRequest(
            "'externalUserId' must be 1 to 150 printable ASCII characters and not '*'. Send your "
            "end user's id.",
            param="externalUserId",
        )
    if request.lifetime_s not in LIFETIMES_S:
        raise InvalidRequest(
            f"'expiresIn' is {quote_value(request.lifetime_s)}; it must be {LIFETIMES_S.start} to "
            f"{LIFETIMES_S.stop - 1} seconds.",
            param="expiresIn",
        )
    return _issue(
        caller,
        _check_permissions(caller, request.permissions),
        end_user=request.end_user,
        audience=request.audience,
        lifetime_s=request.lifetime_s,
        tokens=tokens,
        now_ms=now_ms,
    )


def issue_for_client(caller: Caller, *, tokens: GatewayTokens, now_ms: int) -> IssuedToken:
    """Issue a token with the rights of the caller's key.

    Raises:
        Forbidden: The key has no scope that a token may have.
    """
    rights.require_scope(caller, *END_USER_SCOPES)
    return _issue(
        caller,
        [each for each in CLIENT_SCOPES if each in caller.scopes],
        end_user=None,
        audience=tokens.audiences[0],
        lifetime_s=DEFAULT_LIFETIME_S,
        tokens=tokens,
        now_ms=now_ms,
    )


def _check_permissions(caller: Caller, permissions: Sequence[str]) -> list[Scope]:
    if not permissions:
        raise InvalidRequest(
            "'permissions' is empty: the token could do nothing. Leave it out for embeddings.",
            param="permissions",
        )
    allowed = [each for each in END_USER_SCOPES if each in caller.scopes]
    for each in permissions:
        if each not in allowed:
            raise Forbidden(
                f"'permissions' has {quote_value(each)}, which a token of this key "
                f"cannot have. It can have {', '.join(allowed) or 'none'}.",
                param="permissions",
            )
    return cast("list[Scope]", list(dict.fromkeys(permissions)))


def _issue(
    caller: Caller,
    scopes: Sequence[Scope],
    *,
    end_user: str | None,
    audience: str,
    lifetime_s: int,
    tokens: GatewayTokens,
    now_ms: int,
) -> IssuedToken:
    expiries = [key.expires_ms for key in caller.keys if key.expires_ms is not None]
    expires_ms = min([now_ms + lifetime_s * 1000, *expiries])
    token = tokens.issue(
        caller.key_id,
        secret_id=key_secret.id_of(caller.keys[0].digest),
        scopes=scopes,
        end_user=end_user,
        audience=audience,
        now_ms=now_ms,
        expires_ms=expires_ms,
    )
    return IssuedToken(token, expires_ms)
