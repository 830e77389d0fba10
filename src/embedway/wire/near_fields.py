"""Tells a mistyped name of one of this gateway's fields from a field that belongs to a provider."""

import difflib
from typing import Final

from embedway.core.request import EmbedRequest, normalise_name

CUTOFF = 0.8
"""How alike two names are, from 0 to 1, for one to be taken for the other mistyped."""
MAX_CHARACTERS = 64
"""The longest name that is compared."""

_OURS: Final = {normalise_name(name): name for name in EmbedRequest.__struct_fields__} | {
    "modelname": "model",  # without it `auto` would answer
}
_THEIRS: Final = frozenset({"autotruncate", "truncatedim"})
"""Fields of providers whose names are near to ours."""


def suggest_field(name: str) -> str | None:
    """The field of ours that an unknown field of this name was probably meant to be, if any."""
    if len(name) > MAX_CHARACTERS:
        return None
    plain = normalise_name(name)
    if plain in _THEIRS:
        return None
    near = difflib.get_close_matches(plain, _OURS, n=1, cutoff=CUTOFF)
    return _OURS[near[0]] if near else None
