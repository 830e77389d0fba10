"""Ids of requests and answers: unique, but no secret."""

import os
from random import Random

_BITS = 96
# Seeded by the system once. Asking the system for each id took a tenth of a request's Python time.
_random = Random()
# Of processes forked from one that has loaded this, as some servers do, each has its own ids.
os.register_at_fork(after_in_child=_random.seed)


def new(prefix: str) -> str:
    """A new id, `prefix_` and 24 hexadecimal digits."""
    return f"{prefix}_{_random.getrandbits(_BITS):024x}"
