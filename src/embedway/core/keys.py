"""Keys as the gateway knows them, never the secrets, and who a request comes from."""

from collections.abc import Collection
from typing import Literal, get_args

import msgspec

from embedway.core.budget import Budget
from embedway.core.limit import Limit
from embedway.core.project import Project

Scope = Literal["embeddings", "on_behalf_of", "tokens", "usage", "keys", "admin"]
"""What a credential may do.

`embeddings`: embed, and list models. `on_behalf_of`: name end users with `X-On-Behalf-Of`.
`tokens`: exchange for tokens of end users. `usage`: read the project's usage and cost. `keys`: make
keys of the project with no more rights than its own, and rotate and revoke those. `admin`: all but
embedding, in every project.
"""
SCOPES: tuple[Scope, ...] = get_args(Scope)
USUAL_SCOPES: tuple[Scope, ...] = ("embeddings", "on_behalf_of")


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """The stored record of one key."""

    id: str
    """`key_...`, shown in listings and usage."""
    project_id: str | None
    """Whose it is; None of an admin key, which is of no project."""
    name: str
    digest: bytes
    """Keyed BLAKE2b-256 of the secret; the only form in which the secret is stored."""
    hint: str
    """The first characters of the secret, to tell keys apart."""
    scopes: tuple[Scope, ...]
    issued_by: str | None = None
    """The key of the same project that issued it and that it stays within; None if an
    administrator did."""
    created_ms: int
    expires_ms: int | None = None
    revoked_ms: int | None = None
    models: tuple[str, ...] | None = None
    """The only names of models that requests with it may use; None for any."""
    providers: tuple[str, ...] | None = None
    """The only providers that may serve them; None for any."""
    limits: tuple[Limit, ...] = ()
    """Of its requests and those of keys it issued, together."""
    budgets: tuple[Budget, ...] = ()
    previous_digest: bytes | None = None
    """Digest of the secret before the last rotation; None if that ended it at once."""
    previous_expires_ms: int | None = None
    """When that secret stops working."""

    def opened_by(self, digest: bytes) -> "Key":
        """The key as one of its two secrets opens it: the previous one expires sooner."""
        if digest != self.previous_digest:
            return self
        ends = [each for each in (self.expires_ms, self.previous_expires_ms) if each is not None]
        return msgspec.structs.replace(self, digest=digest, expires_ms=min(ends))

    def state(self, now_ms: int) -> str:
        """`active`, `expired` or `revoked` at `now_ms` (milliseconds since 1970-01-01 UTC)."""
        if self.revoked_ms is not None:
            return "revoked"
        if self.expires_ms is not None and self.expires_ms <= now_ms:
            return "expired"
        return "active"


class KeyContext(msgspec.Struct, frozen=True, kw_only=True):
    """A key with what it stays within, as it is read from the store in one go."""

    key: Key
    issuer: Key | None
    """The key that issued it, if one did."""
    project: Project | None
    """None of an admin key."""
    end_users: bool
    """Whether any end user of the project has a record of its own."""


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Who sent a request, with what rights, and the end user it was sent for."""

    key_id: str
    """Of the key, or `issuer:NAME` for a token of an outside issuer."""
    project: Project | None
    """None of an admin key."""
    keys: tuple[Key, ...] = ()
    """The key and the one that issued it, if any: the request stays within each."""
    scopes: frozenset[Scope]
    """What all of them and the token allow."""
    on_behalf_of: str | None = None
    end_users: bool = False
    """As of `KeyContext`."""

    def has_any_scope(self, scopes: Collection[Scope]) -> bool:
        """Whether any one of `scopes` is among its own."""
        return not self.scopes.isdisjoint(scopes)
