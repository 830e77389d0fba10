"""Defines the entries of the audit log: who did what, to which object, and when."""

from collections.abc import Mapping
from typing import Any, Literal, get_args

import msgspec

AuditAction = Literal[
    "project.created",
    "project.updated",
    "project.archived",
    "api_key.created",
    "api_key.updated",
    "api_key.rotated",
    "api_key.deleted",
    "end_user.created",
    "end_user.updated",
    "end_user.deleted",
    "ledger.pruned",
    "ledger.repaired",
]
"""The kinds of actions, named as OpenAI names them where it has the same one.

`api_key.deleted` means that the key was revoked for good."""
ACTIONS: tuple[AuditAction, ...] = get_args(AuditAction)


class AuditEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of the audit log. Entries are never changed; their ids sort in order of time."""

    id: str = ""
    """`audit_...`, assigned when the event is stored."""
    at_ms: int
    actor: str
    """The id of a key, `issuer:NAME` for a token of an outside issuer, or `cli:USER`."""
    action: AuditAction
    project_id: str | None
    """The project that the action concerns; None for admin keys and the ledger."""
    target: str
    """The id of the project, key or end user, or `ledger`."""
    details: Mapping[str, Any] = {}
    """The fields of a new object, or each changed field with `from` and `to`. Never holds a secret
    or digest."""
    request_id: str | None = None
