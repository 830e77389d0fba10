"""Decides what a key may do: what is written of it, within what the key that issued it may now.

What a key may issue is checked when it is written. Scopes are checked again when it is used;
models, providers, limits and budgets are checked by what enforces them.
"""

from collections.abc import Collection
from typing import get_args

from embedway.core.errors import Forbidden, InvalidKey, shown
from embedway.core.keys import Caller, Held, Key, Scope

NEVER_ISSUED: frozenset[Scope] = frozenset({"keys", "admin"})
"""Scopes that only an administrator gives."""


def caller(held: Held, *, now_ms: int, cure: str) -> Caller:
    """The caller that has this key, with the rights that it has now.

    Raises:
        InvalidKey: It, or the key that issued it, is revoked or expired, or its project is
            archived or gone. The message ends with `cure`.
    """
    key, issuer, project = held.key, held.issuer, held.project
    state = key.state(now_ms)
    if state == "expired" and key.digest == key.previous_digest:
        raise InvalidKey(
            f"This is an old secret of the API key {key.id}, and it has expired. Use the new one, "
            "which 'embedway keys rotate' printed."
        )
    if state != "active":
        raise InvalidKey(f"The API key {key.id} is {state}. {cure}")
    if key.issued_by:
        there = issuer is not None and issuer.project_id == key.project_id
        gone = issuer.state(now_ms) if issuer and there else "gone"
        if gone != "active":
            raise InvalidKey(f"The key that issued the API key {key.id} is {gone}. {cure}")
    if key.project_id and (project is None or project.archived_ms is not None):
        gone = "archived" if project else "gone"
        raise InvalidKey(f"The project of the API key {key.id} is {gone}. {cure}")
    return Caller(
        key_id=key.id,
        project=project,
        keys=(key, issuer) if issuer else (key,),
        scopes=_scopes(key, issuer),
        end_users=held.end_users,
    )


def _scopes(key: Key, issuer: Key | None) -> frozenset[Scope]:
    scopes = frozenset(key.scopes)
    if issuer:
        scopes = (scopes & frozenset(issuer.scopes)) - NEVER_ISSUED
    # Whatever was stored: only a key of no project rules all of them, and does nothing else.
    admin: frozenset[Scope] = frozenset({"admin"})
    return scopes - admin if key.project_id else scopes & admin


def require(caller: Caller, *scopes: Scope) -> None:
    """Raise `Forbidden` unless the caller has any one of `scopes`."""
    if not caller.may(scopes):
        named = " or ".join(scopes)
        has = ", ".join(sorted(caller.scopes)) or "none that counts here"
        raise Forbidden(
            f"This needs the scope {named}; this credential has {has}. Use a key with that scope, "
            "or ask an administrator for one."
        )


def check_issued(key: Key, issuer: Key) -> None:
    """Raise `Forbidden`, with the field at fault, if a new key would have more than its issuer."""
    if "keys" not in issuer.scopes or issuer.issued_by or issuer.project_id is None:
        raise Forbidden(
            "This key may not issue keys. Use one with the scope keys that an administrator made, "
            "or an admin key."
        )
    if key.issued_by != issuer.id or key.project_id != issuer.project_id:
        raise Forbidden(
            f"A key issues keys of its own project alone, {issuer.project_id}, not of "
            f"{shown(key.project_id)}. Use an admin key for another project.",
            param="project",
        )
    for scope in key.scopes:
        if scope not in get_args(Scope) or scope in NEVER_ISSUED or scope not in issuer.scopes:
            may = sorted(set(issuer.scopes) - NEVER_ISSUED)
            raise Forbidden(
                f"'scopes' has {shown(scope)}, which this key cannot give. It can give "
                f"{', '.join(may) or 'none'}.",
                param="scopes",
            )
    _check_list("models", key.models, issuer.models)
    _check_list("providers", key.providers, issuer.providers)
    if issuer.expires_ms is not None and (
        key.expires_ms is None or key.expires_ms > issuer.expires_ms
    ):
        raise Forbidden(
            "The new key would live longer than the one that issues it. Let it expire at "
            f"{issuer.expires_ms // 1000} (seconds since 1970-01-01 UTC) or before.",
            param="expires_at",
        )


def _check_list(
    field: str, wanted: Collection[str] | None, allowed: Collection[str] | None
) -> None:
    if allowed is None:
        return
    if wanted is None:
        raise Forbidden(
            f"'{field}' is missing: without it the new key might use any, and the one that issues "
            f"it may not. Choose among {', '.join(allowed) or 'none'}.",
            param=field,
        )
    for each in wanted:
        if each not in allowed:
            raise Forbidden(
                f"'{field}' has {shown(each)}, which this key may not use itself. Choose among "
                f"{', '.join(allowed) or 'none'}.",
                param=field,
            )
