"""How keys and tokens look, wherever a client put one: ours, those of providers, and others'."""

import re

_LOOK = re.compile(r"(?<![A-Za-z0-9])(sk-|eyJ)[A-Za-z0-9_.-]{12,}")


def contains_secret(text: str) -> bool:
    """Whether something in `text` looks like a key or a token."""
    return _LOOK.search(text) is not None


def redact(text: str) -> str:
    """`text`, with the first characters alone of what looks like a key or a token."""
    return _LOOK.sub(r"\1...", text)
