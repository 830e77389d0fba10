"""The record of administrative acts: who did what, to whom, and when."""

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
"""As OpenAI names them, where it has the same; a key that is `deleted` is revoked for good."""
ACTIONS: tuple[AuditAction, ...] = get_args(AuditAction)


class AuditEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One act. Acts are only ever added; ids sort in the order in which they were done."""

    id: str = ""
    """`audit_...`, given when it is recorded."""
    at_ms: int
    actor: str
    """The id of a key, `issuer:NAME` for a token of an outside issuer, or `cli:USER`."""
    action: AuditAction
    project_id: str | None
    """In whose affairs; None of admin keys."""
    target: str
    """The id of the project, key or end user."""
    details: Mapping[str, Any] = {}
    """What was created, or each changed field with `from` and `to`. Never a secret or a digest."""
    request_id: str | None = None
