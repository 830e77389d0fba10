"""The tokens that replies say they used, however oddly they are written.

Vectors that are right and paid for are never refused for their `usage`: what is no count is left
to an estimate.
"""

import re
from collections.abc import Sequence

import msgspec

UNREADABLE = -1
"""Stands for tokens that a reply reports in a form that is no count."""

_COUNT = re.compile(rb"(\d{1,15})(?:\.0{1,15})?")
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])


def count(raw: msgspec.Raw) -> int | None:
    """The whole number that `raw` is; None for nothing, `UNREADABLE` for anything else."""
    text = bytes(raw)
    if text in {b"", b"null"}:
        return None
    found = _COUNT.fullmatch(text)
    return int(found[1]) if found else UNREADABLE


def tokens(usage: msgspec.Raw, *names: str) -> int | None:
    """The first count among the fields `names` of the object `usage`.

    Returns:
        None if there is none of these fields, `UNREADABLE` if what there is is no count.
    """
    if bytes(usage) in {b"", b"null"}:
        return None
    try:
        fields = _FIELDS.decode(usage)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return UNREADABLE
    counts = [count(fields[name]) for name in names if name in fields]
    known = [each for each in counts if each is not None]
    return next((each for each in known if each != UNREADABLE), known[0] if known else None)


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
