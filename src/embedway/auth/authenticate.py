"""Who sent a request: from its headers to a `Caller`.

Owns the in-memory cache of keys. An entry is trusted for `FRESH_S`, so a key that any process
revoked stops working here within that time.
"""

import asyncio
import re
from collections.abc import Callable

from embedway.auth import secret
from embedway.core.errors import InvalidKey, InvalidRequest, StorageUnavailable
from embedway.core.keys import Caller, Key
from embedway.ports.storage import Keys

FRESH_S = 0.5
MAX_CACHED_KEYS = 10_000

_ON_BEHALF_OF = re.compile(rb"[\x20-\x7e]{1,150}")
_CURE = "Send 'Authorization: Bearer sk-gateway-...' with a key made by 'embedway keys create'."


class Authenticator:
    """Checks keys against the store, through a short-lived cache."""

    def __init__(self, keys: Keys, *, pepper: bytes, now_ms: Callable[[], int]) -> None:
        self._keys = keys
        self._pepper = pepper
        self._now_ms = now_ms
        # Digest to when the entry goes stale and the lookup, shared by all who wait for it.
        self._cache: dict[bytes, tuple[float, asyncio.Task[Key | None]]] = {}

    async def caller(self, authorization: bytes | None, on_behalf_of: bytes | None) -> Caller:
        """The caller that the values of `Authorization` and `X-On-Behalf-Of` stand for.

        Raises:
            InvalidKey: No key, or not one that works now.
            InvalidRequest: `X-On-Behalf-Of` is not an end user's id.
            StorageUnavailable: The key store cannot be read.
        """
        key = await self._lookup(_bearer(authorization))
        if key is None:
            raise InvalidKey(f"This API key does not exist. {_CURE}")
        state = key.state(self._now_ms())
        if state != "active":
            raise InvalidKey(f"The API key {key.id} is {state}. {_CURE}")
        return Caller(
            key_id=key.id,
            on_behalf_of=_end_user(on_behalf_of),
            models=key.models,
            providers=key.providers,
        )

    async def _lookup(self, bearer: str) -> Key | None:
        now_s = asyncio.get_running_loop().time()
        digest = secret.digest(bearer, pepper=self._pepper)
        stale_s, lookup = self._cache.get(digest, (0.0, None))
        if lookup is None or now_s >= stale_s:
            lookup = asyncio.ensure_future(self._keys.find(digest))
            self._remember(digest, now_s + FRESH_S, lookup)
        # Shielded: others may wait for the same lookup when this request is cancelled.
        try:
            return lookup.result() if lookup.done() else await asyncio.shield(lookup)
        except StorageUnavailable as error:
            # Each caller gets an error of its own, with its own time to come back.
            raise StorageUnavailable(error.message) from error.__cause__

    def _remember(self, digest: bytes, stale_s: float, lookup: asyncio.Task[Key | None]) -> None:
        self._cache.pop(digest, None)
        if len(self._cache) >= MAX_CACHED_KEYS:
            del self._cache[next(iter(self._cache))]
        self._cache[digest] = (stale_s, lookup)


def _bearer(authorization: bytes | None) -> str:
    if authorization is None:
        raise InvalidKey(f"You did not send an API key. {_CURE}")
    scheme, _, token = authorization.decode("latin-1").partition(" ")
    if scheme.lower() != "bearer":
        raise InvalidKey(f"The Authorization header is not of the form 'Bearer KEY'. {_CURE}")
    token = token.strip()
    if not secret.well_formed(token):
        raise InvalidKey(f"This API key is incomplete or mistyped. {_CURE}")
    return token


def _end_user(on_behalf_of: bytes | None) -> str | None:
    if on_behalf_of is None:
        return None
    if on_behalf_of == b"*" or not _ON_BEHALF_OF.fullmatch(on_behalf_of):
        raise InvalidRequest(
            "The header X-On-Behalf-Of must be 1 to 150 printable ASCII characters and not '*'. "
            "Send your end user's id, or leave the header out.",
            param="X-On-Behalf-Of",
        )
    return on_behalf_of.decode("ascii")
