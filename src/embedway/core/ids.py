"""Ids of requests and answers: unique, but no secret."""

import os
import re
from random import Random

from embedway.core.redaction import contains_secret

_BITS = 96
_PLAIN = re.compile(r"[\x21-\x7e]{1,128}")
# Seeded by the system once. Asking the system for each id took a tenth of a request's Python time.
_random = Random()
# Of processes forked from one that has loaded this, as some servers do, each has its own ids.
os.register_at_fork(after_in_child=_random.seed)


def new_id(prefix: str) -> str:
    """A new id, `prefix_` and 24 hexadecimal digits."""
    return f"{prefix}_{_random.getrandbits(_BITS):024x}"


def for_request(given: str | None) -> str:
    """The id of a request: the one its client gave it, if that is plain and no secret."""
    if given and _PLAIN.fullmatch(given) and not contains_secret(given):
        return given
    return new_id("req")
