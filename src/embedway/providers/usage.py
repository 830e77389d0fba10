"""Reads the token counts of replies, in any form.

A reply with valid vectors is never refused for its `usage`: a count that cannot be read is
estimated.
"""

import re
from collections.abc import Sequence

import msgspec

UNREADABLE = -1
"""The token count of a reply whose count cannot be read."""

MAX_DIGITS = 15
"""The most digits of a token count."""

_NOTHING = frozenset({b"", b"null"})
_WHOLE = re.compile(rb"(\d{1,%d})\.0{1,15}" % MAX_DIGITS)
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])


def read_count(raw: msgspec.Raw) -> int | None:
    """Return the whole number `raw`; None for null or nothing, `UNREADABLE` for anything else."""
    text = bytes(raw)
    if text.isdigit() and len(text) <= MAX_DIGITS:
        return int(text)
    if text in _NOTHING:
        return None
    found = _WHOLE.fullmatch(text)
    return int(found[1]) if found else UNREADABLE


def read_tokens(usage: msgspec.Raw, *names: str) -> int | None:
    """Return the first count among the fields `names` of the object `usage`.

    Returns:
        None if it has none of these fields, `UNREADABLE` if none of them is a count.
    """
    try:
        fields = _FIELDS.decode(usage)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None if bytes(usage) in _NOTHING else UNREADABLE
    unreadable = None
    for name in names:
        if name in fields and (counted := read_count(fields[name])) is not None:
            if counted != UNREADABLE:
                return counted
            unreadable = UNREADABLE
    return unreadable


def read_field(usage: msgspec.Raw, name: str) -> msgspec.Raw:
    """Return the field `name` of the object `usage`; `usage` itself if it is not an object."""
    try:
        return _FIELDS.decode(usage).get(name, msgspec.Raw())
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return usage


def sum_counts(counts: Sequence[int | None]) -> int | None:
    """Return the sum of `counts`; `UNREADABLE` if one is, else None if one is missing."""
    if UNREADABLE in counts:
        return UNREADABLE
    known = [each for each in counts if each is not None]
    return sum(known) if len(known) == len(counts) else None
