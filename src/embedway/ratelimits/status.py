"""Describes the state of a rate limit."""

import msgspec

from embedway.core.limit import Limit


class LimitStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a limit after a request was counted or refused."""

    limit: Limit
    remaining: int
    """How many requests or tokens are left now."""
    reset_s: float
    """Seconds until the whole limit is available again, if nothing else is sent."""
