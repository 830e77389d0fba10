"""Recognises a mistyped field name of this gateway and leaves providers' fields alone."""

import difflib
from typing import Final

from embedway.core.request import EmbedRequest, normalise_name

CUTOFF = 0.8
"""How similar two names must be, from 0 to 1, for one to count as a mistyped other."""
MAX_CHARACTERS = 64
"""The longest name to compare."""

_OURS: Final = {normalise_name(name): name for name in EmbedRequest.__struct_fields__} | {
    "modelname": "model",  # otherwise the default model would answer
}
_THEIRS: Final = frozenset({"autotruncate", "truncatedim"})
"""Providers' fields with names similar to ours."""


def suggest_field(name: str) -> str | None:
    """Return the field that an unknown name was probably meant to be, or None."""
    if len(name) > MAX_CHARACTERS:
        return None
    plain = normalise_name(name)
    if plain in _THEIRS:
        return None
    near = difflib.get_close_matches(plain, _OURS, n=1, cutoff=CUTOFF)
    return _OURS[near[0]] if near else None
