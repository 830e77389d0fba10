"""Finds secrets in a text, also parts of them and other encodings."""

import base64
from collections.abc import Iterable, Iterator

PART_CHARACTERS = 8
"""How many characters of a secret in a row reveal it. A shorter one is revealed as a whole."""
MIN_CHARACTERS = 3
"""The shortest secret to look for. Shorter strings occur in every text."""


class SecretScanner:
    """Looks for the secrets of one provider. Contains them: never log it."""

    def __init__(self, secrets: Iterable[str]) -> None:
        forms = {form for secret in secrets for form in _forms(secret)}
        self._short = {form for form in forms if MIN_CHARACTERS <= len(form) < PART_CHARACTERS}
        self._parts = {part for form in forms for part in _parts(form)}

    def found_in(self, text: str) -> bool:
        """Return whether `text` has part of a secret, also reversed, in base64 or in hex."""
        return any(part in self._parts for part in _parts(text)) or any(
            short in text for short in self._short
        )


def _parts(text: str) -> Iterator[str]:
    for end in range(PART_CHARACTERS, len(text) + 1):
        yield text[end - PART_CHARACTERS : end]


def _forms(secret: str) -> Iterator[str]:
    raw = secret.encode()
    yield from (secret, secret[::-1], raw.hex(), raw.hex().upper())
    # Text before the secret shifts its base64 by zero, one or two bytes. The outer characters also
    # depend on the neighbouring text, so they are left out.
    for shift in range(3):
        coded = base64.b64encode(bytes(shift) + raw).decode().rstrip("=")[4:-4]
        yield from (coded, coded.translate(_URL_SAFE))


_URL_SAFE = str.maketrans("+/", "-_")
