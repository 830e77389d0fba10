"""Finds and redacts what looks like a key or a token, of this gateway or of anyone else."""

import re

_LOOK = re.compile(r"(?<![A-Za-z0-9])(sk-|eyJ)[A-Za-z0-9_.-]{12,}")


def contains_secret(text: str) -> bool:
    """Return whether something in `text` looks like a key or a token."""
    return _LOOK.search(text) is not None


def redact(text: str) -> str:
    """Return `text` with only the first characters of whatever looks like a key or a token."""
    return _LOOK.sub(r"\1...", text)
