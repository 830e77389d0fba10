"""Describes one difference between two configurations of a gateway."""

from typing import Literal

import msgspec

ChangeKind = Literal[
    "setting", "provider", "deployment", "model", "alias", "issuer", "webhook", "catalog"
]
"""What was changed: a setting, or something that a section of the settings file describes."""
CHANGED = "changed"
"""Stands for a value that is secret, or too long to show."""


class ConfigurationChange(msgspec.Struct, frozen=True, kw_only=True):
    """One difference between the configuration in force and the one that was read."""

    kind: ChangeKind
    name: str
    """The name of the setting, provider, deployment, model, alias, issuer or webhook."""
    field: str | None = None
    """The line that differs; None if all of it was added or removed."""
    before: str | None
    """The value in force; None if there is none, or if it is secret."""
    after: str | None
    """The value that was read; None if there is none, and `changed` if it is secret."""
    needs_restart: bool = False
    """Whether only a restart can apply it."""
