"""Defines events and the webhooks that receive them."""

from collections.abc import Mapping
from typing import Literal

import msgspec

from embedway.core import ids

EventType = Literal[
    "budget.alert",
    "budget.exhausted",
    "space.drifted",
    "space.differs",
    "space.released",
    "deployment.ejected",
    "deployment.recovered",
    "database.unavailable",
    "database.available",
    "redis.unavailable",
    "redis.available",
]
Format = Literal["json", "slack"]

BEGINNINGS: Mapping[str, EventType] = {
    "deployment.recovered": "deployment.ejected",
    "database.available": "database.unavailable",
    "redis.available": "redis.unavailable",
}
"""The types that end something, each with the type that begins it."""
TEST = "webhook.test"
"""The type of the event that `embedway webhooks test` sends."""


def _new_id() -> str:
    return ids.new_id("evt")


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One change of the gateway, of its budgets or of what it depends on."""

    type: str
    """One of `EventType`, or `TEST`."""
    at_ms: int
    """When it happened, in ms since the epoch."""
    subject: str
    """What changed, such as a deployment's id."""
    text: str
    """One sentence for people."""
    data: Mapping[str, str | int | float | None]
    id: str = msgspec.field(default_factory=_new_id)
    """Unique, and the same in every try of every delivery."""


class Webhook(msgspec.Struct, frozen=True, kw_only=True):
    """An address that receives events. Contains secrets: never log it."""

    name: str
    url: str
    events: frozenset[str]
    """The types that it receives."""
    format: Format = "json"
    secret: bytes | None = None
    """The key of its signatures; None sends no signature."""

    def __repr__(self) -> str:
        return f"Webhook({self.name!r})"

    def wants(self, event: Event) -> bool:
        """Return whether it receives events of this type."""
        return event.type in self.events
