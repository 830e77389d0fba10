"""Writes audit events for created and changed projects, keys and end users."""

from collections.abc import Mapping
from typing import Any

import msgspec

from embedway.core.keys import Key
from embedway.core.project import EndUser, Project
from embedway.organization.actors import Actor
from embedway.organization.audit_store import AuditAction, AuditEvent
from embedway.organization.public_fields import public
from embedway.organization.transaction import OrganizationStores
from embedway.storage import records

_UNLOGGED = frozenset(("id", "project_id", "digest", "hint", "created_ms"))
"""The fields of a new object that the event has elsewhere, or that must not be logged."""

Target = Project | Key | EndUser


class AuditLog(msgspec.Struct, frozen=True):
    """Writes the audit events of one transaction."""

    stores: OrganizationStores
    actor: Actor
    at_ms: int

    def log_created(self, action: AuditAction, target: Target) -> None:
        """Log that `target` was created, with every field that differs from its default."""
        defaults = {each.name: each.default for each in msgspec.structs.fields(target)}
        fields = {
            name: value
            for name, value in records.to_row(target).items()
            if name not in _UNLOGGED and getattr(target, name) != defaults[name]
        }
        self.log(action, target, public(fields))

    def log_updated(self, action: AuditAction, before: Target, after: Target) -> None:
        """Log which fields differ between `before` and `after`."""
        old, new = public(records.to_row(before)), public(records.to_row(after))
        changed = {
            name: {"from": old[name], "to": value}
            for name, value in new.items()
            if value != old[name]
        }
        self.log(action, after, changed)

    def log(
        self, action: AuditAction, target: Target | None, details: Mapping[str, Any] = {}
    ) -> None:
        """Log an action on `target`; if it is None, on what the action's name begins with."""
        project_id = target.id if isinstance(target, Project) else target and target.project_id
        self.stores.audit.add(
            AuditEvent(
                at_ms=self.at_ms,
                actor=self.actor.id,
                action=action,
                project_id=project_id,
                target=target.id if target else action.partition(".")[0],
                details=details,
                request_id=self.actor.request_id,
            )
        )
