"""Whether a text gives away a secret, also in part or written otherwise."""

import base64
from collections.abc import Iterable, Iterator

PART_CHARACTERS = 8
"""So many characters of a secret in a row give it away; all of it, if it is shorter."""
LEAST_CHARACTERS = 3
"""Less is in every text."""


class SecretScanner:
    """The secrets of one provider. Holds them: never log it."""

    def __init__(self, secrets: Iterable[str]) -> None:
        forms = {form for secret in secrets for form in _forms(secret)}
        self._short = {form for form in forms if LEAST_CHARACTERS <= len(form) < PART_CHARACTERS}
        self._parts = {part for form in forms for part in _parts(form)}

    def found_in(self, text: str) -> bool:
        """Whether `text` holds a part of one: as it is, backwards, in base64 or in hexadecimal."""
        return any(part in self._parts for part in _parts(text)) or any(
            short in text for short in self._short
        )


def _parts(text: str) -> Iterator[str]:
    for end in range(PART_CHARACTERS, len(text) + 1):
        yield text[end - PART_CHARACTERS : end]


def _forms(secret: str) -> Iterator[str]:
    raw = secret.encode()
    yield from (secret, secret[::-1], raw.hex(), raw.hex().upper())
    # Whatever comes before it shifts the base64 of it by no, one or two bytes, and mixes into the
    # first characters; the last ones mix with what comes after.
    for shift in range(3):
        coded = base64.b64encode(bytes(shift) + raw).decode().rstrip("=")[4:-4]
        yield from (coded, coded.translate(_URL_SAFE))


_URL_SAFE = str.maketrans("+/", "-_")
