"""A gateway key as the gateway knows it: never the secret, only who holds it and what it may."""

import msgspec


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """The stored record of one key."""

    id: str
    """`key_...`, shown in listings and usage."""
    name: str
    digest: bytes
    """Keyed BLAKE2b-256 of the secret; the only form in which the secret is stored."""
    hint: str
    """The first characters of the secret, to tell keys apart."""
    created_ms: int
    expires_ms: int | None
    revoked_ms: int | None
    models: tuple[str, ...] | None
    """The only names of models that requests with it may use; None for any."""
    providers: tuple[str, ...] | None
    """The only providers that may serve them; None for any."""

    def state(self, now_ms: int) -> str:
        """`active`, `expired` or `revoked` at `now_ms` (milliseconds since 1970-01-01 UTC)."""
        if self.revoked_ms is not None:
            return "revoked"
        if self.expires_ms is not None and self.expires_ms <= now_ms:
            return "expired"
        return "active"


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Who sent a request: the key, and the end user it was sent for."""

    key_id: str
    on_behalf_of: str | None
    models: tuple[str, ...] | None
    """As the key's."""
    providers: tuple[str, ...] | None
    """As the key's."""
