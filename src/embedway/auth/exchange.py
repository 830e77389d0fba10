"""Issues tokens for keys: for one end user of a project, or for whoever holds the key.

A token never carries more than its key has, nor a scope that could be used to get more.
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

OF_END_USERS: tuple[Scope, ...] = ("embeddings", "usage")
"""What a token of an end user may carry."""
OF_CLIENTS: tuple[Scope, ...] = (*OF_END_USERS, "on_behalf_of")
"""What a token for whoever holds the key carries, as far as the key has it."""
USUAL_S = 3600
LIFETIMES_S = range(300, 2_592_001)


class IssuedToken(msgspec.Struct, frozen=True):
    """A new token."""

    token: str
    expires_ms: int
    """When it expires: no later than its key."""


class TokenRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request for a token."""

    audience: str
    end_user: str
    lifetime_s: int = USUAL_S
    permissions: Sequence[str] = ("embeddings",)


def issue_for_end_user(
    caller: Caller, wanted: TokenRequest, *, tokens: GatewayTokens, now_ms: int
) -> IssuedToken:
    """Issue a token for one end user of the caller, who must have sent a key.

    Raises:
        Forbidden: The key may not have such tokens, or not with these permissions.
        InvalidRequest: A field is out of range.
    """
    rights.require_scope(caller, "tokens")
    if wanted.audience not in tokens.audiences:
        raise InvalidRequest(
            f"'audience' is {quote_value(wanted.audience)}; tokens are made for "
            f"{', '.join(map(quote_value, tokens.audiences))}. Use one of these, or "
            "have the setting "
            "token_audiences name yours.",
            param="audience",
        )
    if not END_USER.fullmatch(wanted.end_user):
        raise InvalidRequest(
            "'externalUserId' must be 1 to 150 printable ASCII characters and not '*'. Send your "
            "end user's id.",
            param="externalUserId",
        )
    if wanted.lifetime_s not in LIFETIMES_S:
        raise InvalidRequest(
            f"'expiresIn' is {quote_value(wanted.lifetime_s)}; it must be {LIFETIMES_S.start} to "
            f"{LIFETIMES_S.stop - 1} seconds.",
            param="expiresIn",
        )
    return _issue(
        caller,
        _permitted(caller, wanted.permissions),
        end_user=wanted.end_user,
        audience=wanted.audience,
        lifetime_s=wanted.lifetime_s,
        tokens=tokens,
        now_ms=now_ms,
    )


def issue_for_client(caller: Caller, *, tokens: GatewayTokens, now_ms: int) -> IssuedToken:
    """Issue a token with the rights of the caller's key.

    Raises:
        Forbidden: It has none that a token may carry.
    """
    rights.require_scope(caller, *OF_END_USERS)
    return _issue(
        caller,
        [each for each in OF_CLIENTS if each in caller.scopes],
        end_user=None,
        audience=tokens.audiences[0],
        lifetime_s=USUAL_S,
        tokens=tokens,
        now_ms=now_ms,
    )


def _permitted(caller: Caller, permissions: Sequence[str]) -> list[Scope]:
    if not permissions:
        raise InvalidRequest(
            "'permissions' is empty: such a token would be of no use. Leave it out for embeddings.",
            param="permissions",
        )
    may = [each for each in OF_END_USERS if each in caller.scopes]
    for each in permissions:
        if each not in may:
            raise Forbidden(
                f"'permissions' has {quote_value(each)}, which a token of this key "
                "cannot carry. It can "
                f"carry {', '.join(may) or 'none'}.",
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
    ends = [key.expires_ms for key in caller.keys if key.expires_ms is not None]
    expires_ms = min([now_ms + lifetime_s * 1000, *ends])
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
