"""Identifies what a rate limiter counts."""

import msgspec

from embedway.core.limit import Limit
from embedway.core.subject import Subject


class LimitKey(msgspec.Struct, frozen=True, kw_only=True):
    """A subject and one of its limits.

    Keys that differ only in the limit's amount share one count.
    """

    subject: Subject
    limit: Limit
