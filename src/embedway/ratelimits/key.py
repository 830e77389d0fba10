"""Names what a rate limit counts."""

import msgspec

from embedway.core.limit import Limit
from embedway.core.subject import Subject


class LimitKey(msgspec.Struct, frozen=True, kw_only=True):
    """A limit of somebody, and so one thing that is counted.

    Whatever the amount, there is one count of each subject, what is counted, and length.
    """

    subject: Subject
    limit: Limit
