"""Defines keys, without their secrets, and callers."""

from collections.abc import Collection
from typing import Literal, get_args

import msgspec

from embedway.core.budget import Budget
from embedway.core.limit import Limit
from embedway.core.project import Project

Scope = Literal["embeddings", "on_behalf_of", "tokens", "usage", "keys", "admin"]
"""One right of a credential.

`embeddings`: embed, and list models. `on_behalf_of`: name end users with `X-On-Behalf-Of`.
`tokens`: exchange a key for tokens for end users. `usage`: read the project's usage and cost.
`keys`: create keys of the project with no more rights than its own, and rotate and revoke those.
`admin`: everything except embedding, in every project.
"""
SCOPES: tuple[Scope, ...] = get_args(Scope)
USUAL_SCOPES: tuple[Scope, ...] = ("embeddings", "on_behalf_of")


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """The stored record of one key."""

    id: str
    """The key's id, `key_...`, shown in listings and usage."""
    project_id: str | None
    """The project it belongs to; None for an admin key."""
    name: str
    digest: bytes
    """The keyed BLAKE2b-256 of the secret, the only form in which the secret is stored."""
    hint: str
    """The first characters of the secret, to tell keys apart."""
    scopes: tuple[Scope, ...]
    issued_by: str | None = None
    """The key of the same project that issued it and whose rights and limits bind it; None if an
    administrator issued it."""
    created_ms: int
    expires_ms: int | None = None
    revoked_ms: int | None = None
    models: tuple[str, ...] | None = None
    """The model names that requests may use; None for any."""
    providers: tuple[str, ...] | None = None
    """The providers that may serve them; None for any."""
    limits: tuple[Limit, ...] = ()
    """The rate limits for this key and the keys it issued, together."""
    budgets: tuple[Budget, ...] = ()
    """The budgets for this key and the keys it issued, together."""
    previous_digest: bytes | None = None
    """The digest of the secret before the last rotation; None if it no longer works."""
    previous_expires_ms: int | None = None
    """When the previous secret stops working, in ms since the epoch."""

    def opened_by(self, digest: bytes) -> "Key":
        """Return the key with the digest and the expiry of the secret that was sent."""
        if digest != self.previous_digest:
            return self
        ends = [each for each in (self.expires_ms, self.previous_expires_ms) if each is not None]
        return msgspec.structs.replace(self, digest=digest, expires_ms=min(ends))

    def state(self, now_ms: int) -> str:
        """Return `active`, `expired` or `revoked` at `now_ms`, in ms since the epoch."""
        if self.revoked_ms is not None:
            return "revoked"
        if self.expires_ms is not None and self.expires_ms <= now_ms:
            return "expired"
        return "active"


class KeyContext(msgspec.Struct, frozen=True, kw_only=True):
    """A key with its issuer and project, read from the database together."""

    key: Key
    issuer: Key | None
    """The key that issued it, if any."""
    project: Project | None
    """The key's project; None for an admin key."""
    has_end_users: bool
    """Whether any end user of the project has a record of its own."""


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Who sent a request, with which rights, and for which end user."""

    key_id: str
    """The key's id, or `issuer:NAME` for a token of an outside issuer."""
    project: Project | None
    """The key's project; None for an admin key."""
    keys: tuple[Key, ...] = ()
    """The key and its issuer, if any. The restrictions of each bind the request."""
    scopes: frozenset[Scope]
    """The scopes that all keys and the token have in common."""
    on_behalf_of: str | None = None
    has_end_users: bool = False
    """Whether any end user of the project has a record of its own."""

    def has_any_scope(self, scopes: Collection[Scope]) -> bool:
        """Return whether the caller has at least one of `scopes`."""
        return not self.scopes.isdisjoint(scopes)
