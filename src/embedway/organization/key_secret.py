"""Generates and checks the secrets of keys, and the digests under which they are stored.

A secret is `sk-gateway-`, 32 random characters and a checksum of 6. The checksum reveals a mistyped
key without a database query, and lets secret scanners recognise a leaked one.
"""

import hashlib
import re
import secrets
import string
import zlib
from typing import Any

import msgspec

from embedway.core.keys import USUAL_SCOPES, Key
from embedway.core.project import DEFAULT_PROJECT

PREFIX = "sk-gateway-"
RANDOM_CHARACTERS = 32  # of 62: 190 bits
CHECKSUM_CHARACTERS = 6  # 62**6 > 2**32
HINT_CHARACTERS = len(PREFIX) + 4

_ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
_PATTERN = re.compile(
    rf"{PREFIX}[0-9A-Za-z]{{{RANDOM_CHARACTERS + CHECKSUM_CHARACTERS}}}", re.ASCII
)


def generate_secret() -> str:
    """Return a new random secret."""
    random = PREFIX + "".join(secrets.choice(_ALPHABET) for _ in range(RANDOM_CHARACTERS))
    return random + _checksum(random)


def is_well_formed(secret: str) -> bool:
    """Return whether `secret` has the form of a key and its checksum is right."""
    return (
        _PATTERN.fullmatch(secret) is not None
        and _checksum(secret[:-CHECKSUM_CHARACTERS]) == secret[-CHECKSUM_CHARACTERS:]
    )


def digest(secret: str, *, pepper: bytes) -> bytes:
    """Return the keyed BLAKE2b-256 digest of `secret`.

    A fast hash is enough because the secret is random, unlike a password. The pepper is kept apart
    from the database, so a stolen database does not help to check guesses.
    """
    return hashlib.blake2b(secret.encode(), key=pepper, digest_size=32).digest()


def id_of(digest: bytes) -> str:
    """Return a short id for the secret with this digest. It does not reveal the secret."""
    return digest[:8].hex()


def _checksum(text: str) -> str:
    value, digits = zlib.crc32(text.encode()), ""
    for _ in range(CHECKSUM_CHARACTERS):
        value, digit = divmod(value, len(_ALPHABET))
        digits += _ALPHABET[digit]
    return digits


def issue_key(name: str, *, pepper: bytes, now_ms: int, **fields: Any) -> tuple[str, Key]:
    """Return a new secret, to be shown once, and the key to store.

    By default the key belongs to the default project and has the usual scopes; `fields` of `Key`
    override that.
    """
    secret = generate_secret()
    key = Key(
        id=f"key_{secrets.token_hex(8)}",
        project_id=DEFAULT_PROJECT,
        name=name,
        digest=digest(secret, pepper=pepper),
        hint=secret[:HINT_CHARACTERS],
        scopes=USUAL_SCOPES,
        created_ms=now_ms,
    )
    return secret, msgspec.structs.replace(key, **fields)


def rotate_key(key: Key, *, pepper: bytes, now_ms: int, grace_ms: int) -> tuple[str, Key]:
    """Return a new secret and `key` with it. The old secret works for another `grace_ms`."""
    secret = generate_secret()
    return secret, msgspec.structs.replace(
        key,
        digest=digest(secret, pepper=pepper),
        hint=secret[:HINT_CHARACTERS],
        previous_digest=key.digest if grace_ms else None,
        previous_expires_ms=now_ms + grace_ms if grace_ms else None,
    )
