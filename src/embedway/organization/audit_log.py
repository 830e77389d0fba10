"""Adds to the record of administrative acts: what was created, and what was changed to what."""

from collections.abc import Mapping
from typing import Any

import msgspec

from embedway.core.keys import Key
from embedway.core.project import EndUser, Project
from embedway.organization.actors import Actor
from embedway.organization.audit_event import AuditAction, AuditEvent
from embedway.organization.public_fields import public
from embedway.organization.transaction import OrganizationStores
from embedway.storage import records

_UNSAID = frozenset(("id", "project_id", "digest", "hint", "created_ms"))
"""Of what is created: it is said already, or must not be."""

Target = Project | Key | EndUser


class AuditLog(msgspec.Struct, frozen=True):
    """The record, for the acts of one transaction."""

    everything: OrganizationStores
    actor: Actor
    at_ms: int

    def log_created(self, action: AuditAction, made: Target) -> None:
        """Something was made, with what was chosen for it."""
        defaults = {each.name: each.default for each in msgspec.structs.fields(made)}
        self.log(
            action,
            made,
            public(
                {
                    name: value
                    for name, value in records.to_row(made).items()
                    if name not in _UNSAID and getattr(made, name) != defaults[name]
                }
            ),
        )

    def log_updated(self, action: AuditAction, before: Target, after: Target) -> None:
        """Fields of something were changed."""
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
        """Something was done to something, or to the ledger."""
        self.everything.audit.add(
            AuditEvent(
                at_ms=self.at_ms,
                actor=self.actor.id,
                action=action,
                project_id=target.id
                if isinstance(target, Project)
                else target and target.project_id,
                target=target.id if target else "ledger",
                details=details,
                request_id=self.actor.request_id,
            )
        )
