"""Ids of requests and answers: unique, but no secret."""

from random import Random

_BITS = 96
# Seeded by the system once. Asking the system for each id took a tenth of a request's Python time.
_random = Random()


def new(prefix: str) -> str:
    """A new id, `prefix_` and 24 hexadecimal digits."""
    return f"{prefix}_{_random.getrandbits(_BITS):024x}"
