"""Describes the state of a rate limit."""

import msgspec

from embedway.core.limit import Limit


class LimitStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How a limit stands after a request was counted or refused."""

    limit: Limit
    remaining: int
    """What may be asked for at once."""
    reset_s: float
    """Until all of it may be, if nothing else is asked for; seconds."""
