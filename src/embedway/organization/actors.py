"""Who does administrative acts, and what they may do.

An admin key and the command line may do all. A key with the scope `keys` may make keys of its own
project, and list, rotate and revoke those. Nobody else may do anything.
"""

from typing import Self

import msgspec
import structlog

from embedway.core.errors import Forbidden, NotFound, quote_text
from embedway.core.keys import Caller, Key
from embedway.organization.transaction import OrganizationStores

_log = structlog.get_logger("embedway.admin")


class Actor(msgspec.Struct, frozen=True):
    """Who does something."""

    id: str
    """As in `AuditEvent.actor`."""
    caller: Caller | None
    """With the rights it has; None of whoever may read and write the database anyway."""
    request_id: str | None = None

    @classmethod
    def at_command_line(cls, user: str) -> Self:
        """The user of the operating system who runs a command: an administrator."""
        return cls(f"cli:{user}", None)

    @classmethod
    def of_request(cls, caller: Caller, *, request_id: str) -> Self:
        """Who sent a request."""
        return cls(caller.key_id, caller, request_id)


def is_admin(actor: Actor) -> bool:
    """Whether the actor may do all."""
    caller = actor.caller
    # A token of an end user carries rights of a key, but is not in the key owner's hands.
    return caller is None or (caller.on_behalf_of is None and caller.has_any_scope(("admin",)))


def require_admin(actor: Actor) -> None:
    """Lets pass who may do all.

    Raises:
        Forbidden: The actor may not.
    """
    if not is_admin(actor):
        raise _forbidden(actor)


def issuing_key(
    everything: OrganizationStores, actor: Actor, project_id: str | None, *, now_ms: int
) -> Key | None:
    """The key that the actor issues keys of this project with; None of an administrator.

    It is as it is stored now, but with no scopes that the actor itself does not have.

    Raises:
        Forbidden: The actor may not issue keys.
        NotFound: It may, but of another project.
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
    key = everything.keys.get(caller.key_id)
    if key is None or key.state(now_ms) != "active" or "keys" not in key.scopes:
        raise _forbidden(actor)
    scopes = tuple(each for each in key.scopes if each in caller.scopes)
    return msgspec.structs.replace(key, scopes=scopes)


def not_found_error(what: str, id: str) -> NotFound:
    """The answer for what does not exist, and for what is somebody else's alike."""
    return NotFound(f"There is no {what} {quote_text(id)}, or it is not yours to see.")


def _forbidden(actor: Actor) -> Forbidden:
    _log.warning("act refused", actor=actor.id, request_id=actor.request_id)
    return Forbidden(
        "This credential has no right to this. It needs an admin key; a key with the scope keys "
        "may make keys of its own project, and list, rotate and revoke those that it made."
    )
