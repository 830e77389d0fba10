"""Adds to the record of administrative acts: what was created, and what was changed to what."""

from collections.abc import Mapping
from typing import Any

import msgspec

from embedway.core.keys import Key
from embedway.core.project import EndUser, Project
from embedway.organization.actors import Actor
from embedway.organization.audit_event import Act, Action
from embedway.organization.public_fields import public
from embedway.organization.transaction import Organisation
from embedway.storage import records

_UNSAID = frozenset(("id", "project_id", "digest", "hint", "created_ms"))
"""Of what is created: it is said already, or must not be."""

Target = Project | Key | EndUser


class Journal(msgspec.Struct, frozen=True):
    """The record, for the acts of one transaction."""

    everything: Organisation
    actor: Actor
    at_ms: int

    def created(self, action: Action, made: Target) -> None:
        """Something was made, with what was chosen for it."""
        defaults = {each.name: each.default for each in msgspec.structs.fields(made)}
        self.done(
            action,
            made,
            public(
                {
                    name: value
                    for name, value in records.row(made).items()
                    if name not in _UNSAID and getattr(made, name) != defaults[name]
                }
            ),
        )

    def updated(self, action: Action, before: Target, after: Target) -> None:
        """Fields of something were changed."""
        old, new = public(records.row(before)), public(records.row(after))
        changed = {
            name: {"from": old[name], "to": value}
            for name, value in new.items()
            if value != old[name]
        }
        self.done(action, after, changed)

    def done(self, action: Action, target: Target | None, details: Mapping[str, Any] = {}) -> None:
        """Something was done to something, or to the ledger."""
        self.everything.audit.add(
            Act(
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
