"""Decides what a key may do now: its own scopes, within those of the key that issued it.

What a key may grant is checked when the new key is stored; scopes are checked again on each use.
Models, providers, limits and budgets are checked where they are enforced.
"""

from embedway.core.errors import Forbidden, InvalidKey
from embedway.core.keys import Caller, Key, KeyContext, Scope
from embedway.organization.issuing import NEVER_ISSUED


def caller_of_key(context: KeyContext, *, now_ms: int, cure: str) -> Caller:
    """Return the caller for this key, with the rights that the key has now.

    Raises:
        InvalidKey: The key, or the one that issued it, is revoked or expired, or its project is
            archived or does not exist. The message ends with `cure`.
    """
    key, issuer, project = context.key, context.issuer, context.project
    state = key.state(now_ms)
    if state == "expired" and key.digest == key.previous_digest:
        raise InvalidKey(
            f"This is an old secret of the API key {key.id}, and it has expired. Use the new one, "
            "which 'embedway keys rotate' printed."
        )
    if state != "active":
        raise InvalidKey(f"The API key {key.id} is {state}. {cure}")
    if key.issued_by:
        same_project = issuer is not None and issuer.project_id == key.project_id
        issuer_state = issuer.state(now_ms) if issuer and same_project else "gone"
        if issuer_state != "active":
            raise InvalidKey(f"The key that issued the API key {key.id} is {issuer_state}. {cure}")
    if key.project_id and (project is None or project.archived_ms is not None):
        problem = "archived" if project else "gone"
        raise InvalidKey(f"The project of the API key {key.id} is {problem}. {cure}")
    return Caller(
        key_id=key.id,
        project=project,
        keys=(key, issuer) if issuer else (key,),
        scopes=_scopes(key, issuer),
        has_end_users=context.has_end_users,
    )


def _scopes(key: Key, issuer: Key | None) -> frozenset[Scope]:
    scopes = frozenset(key.scopes)
    if issuer:
        scopes = (scopes & frozenset(issuer.scopes)) - NEVER_ISSUED
    # Whatever is stored, only keys without a project have the scope `admin`, and no other.
    admin: frozenset[Scope] = frozenset({"admin"})
    return scopes - admin if key.project_id else scopes & admin


def require_scope(caller: Caller, *scopes: Scope) -> None:
    """Raise `Forbidden` unless the caller has one of `scopes`."""
    if not caller.has_any_scope(scopes):
        names = " or ".join(scopes)
        has = ", ".join(sorted(caller.scopes)) or "none"
        raise Forbidden(
            f"This needs the scope {names}; this credential has {has}. Use a key with that scope, "
            "or ask an administrator for one."
        )
