"""How much somebody may ask for in a time, and how that stands."""

import msgspec

from embedway.core.limit import Limit
from embedway.core.subject import Subject


class Meter(msgspec.Struct, frozen=True, kw_only=True):
    """A limit of somebody, and so one thing that is counted.

    Whatever the amount, there is one count of each subject, what is counted, and length.
    """

    subject: Subject
    limit: Limit


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How a limit stands after a request was counted or refused."""

    limit: Limit
    remaining: int
    """What may be asked for at once."""
    reset_s: float
    """Until all of it may be, if nothing else is asked for; seconds."""
