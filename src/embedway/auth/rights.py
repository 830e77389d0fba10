"""Decides what a key may do: what is written of it, within what the key that issued it may now.

What a key may issue is checked when it is written. Scopes are checked again when it is used;
models, providers, limits and budgets are checked by what enforces them.
"""

from embedway.core.errors import Forbidden, InvalidKey
from embedway.core.keys import Caller, Key, KeyContext, Scope
from embedway.organization.issuing import NEVER_ISSUED


def caller_of_key(held: KeyContext, *, now_ms: int, cure: str) -> Caller:
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
        has_end_users=held.has_end_users,
    )


def _scopes(key: Key, issuer: Key | None) -> frozenset[Scope]:
    scopes = frozenset(key.scopes)
    if issuer:
        scopes = (scopes & frozenset(issuer.scopes)) - NEVER_ISSUED
    # Whatever was stored: only a key of no project rules all of them, and does nothing else.
    admin: frozenset[Scope] = frozenset({"admin"})
    return scopes - admin if key.project_id else scopes & admin


def require_scope(caller: Caller, *scopes: Scope) -> None:
    """Raise `Forbidden` unless the caller has any one of `scopes`."""
    if not caller.has_any_scope(scopes):
        named = " or ".join(scopes)
        has = ", ".join(sorted(caller.scopes)) or "none that counts here"
        raise Forbidden(
            f"This needs the scope {named}; this credential has {has}. Use a key with that scope, "
            "or ask an administrator for one."
        )
