"""Defines how refused requests are counted."""

import msgspec

QUARTER_MS = 900_000
"""The length of a bucket of refusals. Some time zones begin their days at a quarter of an hour."""


class RefusalCount(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """The properties by which refused requests are grouped and counted."""

    at_ms: int
    """When the quarter hour begins, in ms since the epoch."""
    project_id: str
    """The key's project; empty if the request was refused before its key was recognised."""
    key_id: str
    """The key; empty if the request was refused before it was recognised."""
    reason: str
    """The `EmbedwayError.reason` of the answer."""
