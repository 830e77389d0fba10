"""The tokens that replies say they used, however oddly they are written.

Vectors that are right and paid for are never refused for their `usage`: what is no count is left
to an estimate.
"""

import re
from collections.abc import Sequence

import msgspec

UNREADABLE = -1
"""Stands for tokens that a reply reports in a form that is no count."""

MAX_DIGITS = 15
"""No count of tokens has more."""

_NOTHING = frozenset({b"", b"null"})
_WHOLE = re.compile(rb"(\d{1,%d})\.0{1,15}" % MAX_DIGITS)
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])


def count(raw: msgspec.Raw) -> int | None:
    """The whole number that `raw` is; None for nothing, `UNREADABLE` for anything else."""
    text = bytes(raw)
    if text.isdigit() and len(text) <= MAX_DIGITS:
        return int(text)
    if text in _NOTHING:
        return None
    found = _WHOLE.fullmatch(text)
    return int(found[1]) if found else UNREADABLE


def tokens(usage: msgspec.Raw, *names: str) -> int | None:
    """The first count among the fields `names` of the object `usage`.

    Returns:
        None if there is none of these fields, `UNREADABLE` if what there is is no count.
    """
    try:
        fields = _FIELDS.decode(usage)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None if bytes(usage) in _NOTHING else UNREADABLE
    unreadable = None
    for name in names:
        if name in fields and (counted := count(fields[name])) is not None:
            if counted != UNREADABLE:
                return counted
            unreadable = UNREADABLE
    return unreadable


def within(usage: msgspec.Raw, name: str) -> msgspec.Raw:
    """The field `name` of the object `usage`, or what stands in its place."""
    try:
        return _FIELDS.decode(usage).get(name, msgspec.Raw())
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return usage


def total(counts: Sequence[int | None]) -> int | None:
    """The sum of `counts`; None if one is missing, `UNREADABLE` if one is no count."""
    if UNREADABLE in counts:
        return UNREADABLE
    known = [each for each in counts if each is not None]
    return sum(known) if len(known) == len(counts) else None
