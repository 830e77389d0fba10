"""Requests that were refused, as they are counted."""

import msgspec

QUARTER_MS = 900_000
"""Refusals are counted by quarter hour, because some time zones begin their days at a quarter."""


class RefusalCount(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """What refused requests have in common that are counted together."""

    at_ms: int
    """When the quarter hour begins, in ms since the epoch."""
    project_id: str
    """Empty if the request was refused before its key was recognised; so is `key_id`."""
    key_id: str
    reason: str
    """See `embedway.core.errors.EmbedwayError.reason`."""
