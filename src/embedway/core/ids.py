"""Makes ids for requests and answers. They are unique, not secret."""

import os
import re
from random import Random

from embedway.core.redaction import contains_secret

_BITS = 96
_PLAIN = re.compile(r"[\x21-\x7e]{1,128}")
# Seeded once: asking the system for each id took a tenth of a request's Python time.
_random = Random()
# Some servers fork after importing this module; each process needs ids of its own.
os.register_at_fork(after_in_child=_random.seed)


def new_id(prefix: str) -> str:
    """Return a new id: `prefix`, an underscore and 24 hexadecimal digits."""
    return f"{prefix}_{_random.getrandbits(_BITS):024x}"


def random_bytes(count: int) -> bytes:
    """Return `count` random bytes, for an id in another form."""
    return _random.randbytes(count)


def for_request(client_id: str | None) -> str:
    """Return the client's id if it is printable ASCII and no secret, else a new id."""
    if client_id and _PLAIN.fullmatch(client_id) and not contains_secret(client_id):
        return client_id
    return new_id("req")
