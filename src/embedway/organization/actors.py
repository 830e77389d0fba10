"""Identifies the actor of an administrative action and checks what it may do.

Admin keys and the command line may do everything. A key with the scope `keys` may create keys of
its own project, and list, rotate and revoke the ones it created. No other credential may do
anything.
"""

from typing import Self

import msgspec
import structlog

from embedway.core.errors import Forbidden, NotFound, quote_text
from embedway.core.keys import Caller, Key
from embedway.organization.transaction import OrganizationStores

_log = structlog.get_logger("embedway.admin")


class Actor(msgspec.Struct, frozen=True):
    """The person or key that performs an administrative action."""

    id: str
    """The id that the audit log shows; see `AuditEvent.actor`."""
    caller: Caller | None
    """The caller with its scopes; None at the command line, which has access to the database
    anyway."""
    request_id: str | None = None

    @classmethod
    def at_command_line(cls, user: str) -> Self:
        """Return the actor for an operating system user who runs a command: an administrator."""
        return cls(f"cli:{user}", None)

    @classmethod
    def of_request(cls, caller: Caller, *, request_id: str) -> Self:
        """Return the actor for the caller of an HTTP request."""
        return cls(caller.key_id, caller, request_id)


def is_admin(actor: Actor) -> bool:
    """Return whether the actor may do everything."""
    caller = actor.caller
    # An end user holds this token, not the key's owner, so it never makes an administrator.
    return caller is None or (caller.on_behalf_of is None and caller.has_any_scope(("admin",)))


def require_admin(actor: Actor) -> None:
    """Raise `Forbidden` unless the actor is an administrator."""
    if not is_admin(actor):
        raise _forbidden(actor)


def find_issuing_key(
    stores: OrganizationStores, actor: Actor, project_id: str | None, *, now_ms: int
) -> Key | None:
    """Return the key that the actor issues keys of this project with; None for an administrator.

    The key is read from the database, without any scope that the actor itself lacks.

    Raises:
        Forbidden: The actor may not issue keys.
        NotFound: The actor may issue keys, but of another project.
    """
    if is_admin(actor):
        return None
    caller = actor.caller
    if (
        caller is None
        or caller.on_behalf_of is not None
        or [each.id for each in caller.keys] != [caller.key_id]
        or not caller.has_any_scope(("keys",))
        or project_id is None
    ):
        raise _forbidden(actor)
    if caller.project is None or caller.project.id != project_id:
        raise not_found_error("project", project_id)
    key = stores.keys.get(caller.key_id)
    if key is None or key.state(now_ms) != "active" or "keys" not in key.scopes:
        raise _forbidden(actor)
    scopes = tuple(each for each in key.scopes if each in caller.scopes)
    return msgspec.structs.replace(key, scopes=scopes)


def not_found_error(what: str, id: str) -> NotFound:
    """Return one and the same error for what does not exist and for what the actor may not see."""
    return NotFound(f"There is no {what} {quote_text(id)}, or you may not see it.")


def _forbidden(actor: Actor) -> Forbidden:
    _log.warning("act refused", actor=actor.id, request_id=actor.request_id)
    return Forbidden(
        "This credential may not do this. Use an admin key. A key with the scope keys may only "
        "create keys of its own project, and list, rotate and revoke the ones it created."
    )
