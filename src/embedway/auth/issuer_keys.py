"""Fetches the keys of one outside issuer when they are needed, and keeps them.

Whoever sends tokens cannot cause more fetches than the constants below allow. How a document is
fetched, and from which addresses, is not known here.
"""

from collections.abc import Awaitable, Callable, Sequence
from urllib.parse import urlsplit

import msgspec
import structlog

from embedway.auth import public_keys
from embedway.auth.public_keys import PublicKey
from embedway.concurrency.single_flight import SingleFlight
from embedway.core.errors import StorageUnavailable

REFRESH_S = 600.0
"""Fetch keys anew at this age; meanwhile the old ones are used."""
AGAIN_S = 30.0
"""Wait this long between fetches for unknown keys, and after a fetch that failed."""
FIRST_AGAIN_S = 2.0
"""Wait this long after a fetch that failed while there are no keys at all."""
KEPT_S = 24 * 3600.0
"""Use keys for this long while they cannot be fetched."""
MAX_WAITING = 64
"""The most requests that wait for one fetch; more are refused with a 503."""

_DISCOVERY = "/.well-known/openid-configuration"
_log = structlog.get_logger("embedway.auth")

Fetch = Callable[[str], Awaitable[bytes]]
"""The document at an address; `OSError` with the reason if it cannot be had."""


class _Configuration(msgspec.Struct):
    """What is read of OpenID Connect's discovery document."""

    issuer: str
    jwks_uri: str


class IssuerKeys:
    """What one issuer publishes."""

    def __init__(
        self,
        name: str,
        *,
        issuer: str,
        jwks_url: str | None,
        fetch: Fetch,
        now_s: Callable[[], float],
    ) -> None:
        self._name = name
        self._issuer = issuer
        self._jwks_url = jwks_url
        self._fetch = fetch
        self._now_s = now_s
        self._keys: Sequence[PublicKey] | None = None
        self._fetched_s = self._tried_s = float("-inf")
        self._fetching = SingleFlight(self._refresh)
        self._waiting = 0

    async def find(self, kid: str | None, algorithm: str) -> PublicKey | None:
        """Find the key of this id and algorithm; without an id, the only one of the algorithm.

        Raises:
            StorageUnavailable: There are no keys to look among.
        """
        age_s = self._now_s() - self._fetched_s
        if age_s >= KEPT_S:
            self._keys = None
            await self._refreshed(FIRST_AGAIN_S)
        elif age_s >= REFRESH_S:
            self._start(AGAIN_S)
        key = self._chosen(kid, algorithm)
        if key is None and kid is not None:
            await self._refreshed(AGAIN_S)
            key = self._chosen(kid, algorithm)
        return key

    async def aclose(self) -> None:
        """Cancel a fetch under way."""
        await self._fetching.aclose()

    def _chosen(self, kid: str | None, algorithm: str) -> PublicKey | None:
        if self._keys is None:
            raise StorageUnavailable(
                f"The keys of the issuer {self._name!r} cannot be fetched right now. Try again."
            )
        found = [each for each in self._keys if each.fits(algorithm)]
        if kid is None:
            return found[0] if len(found) == 1 else None
        return next((each for each in found if each.kid == kid), None)

    async def _refreshed(self, again_s: float) -> None:
        """Wait for a fetch that is under way, or for one that is due."""
        if not self._start(again_s):
            return
        if self._waiting >= MAX_WAITING:
            raise StorageUnavailable(
                f"The keys of the issuer {self._name!r} are being fetched. Try again."
            )
        self._waiting += 1
        try:
            await self._fetching.wait()
        finally:
            self._waiting -= 1

    def _start(self, again_s: float) -> bool:
        """Start a fetch if one is due; return whether one is under way."""
        if not self._fetching.is_running and self._now_s() - self._tried_s >= again_s:
            self._tried_s = self._now_s()
            self._fetching.start()
        return self._fetching.is_running

    async def _refresh(self) -> None:
        try:
            keys = public_keys.parse_public_keys(
                await self._fetch(self._jwks_url or await self._discovered())
            )
        except (OSError, ValueError) as error:
            _log.warning("issuer's keys not fetched", issuer=self._name, reason=str(error))
        else:
            if not keys:
                _log.warning("issuer publishes no key that can be used", issuer=self._name)
            self._keys, self._fetched_s = keys, self._now_s()

    async def _discovered(self) -> str:
        document = await self._fetch(self._issuer.rstrip("/") + _DISCOVERY)
        try:
            told = msgspec.json.decode(document, type=_Configuration)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise ValueError(f"it is no configuration: {error}") from None
        if told.issuer != self._issuer:
            raise ValueError("its configuration is of another issuer")
        if not self._trusted(told.jwks_uri):
            raise ValueError("its configuration has no jwks_uri that begins with https://")
        return told.jwks_uri

    def _trusted(self, url: str) -> bool:
        # Without TLS only where the administrator had it so.
        ours, theirs = urlsplit(self._issuer), urlsplit(url)
        same = (ours.scheme, ours.netloc) == (theirs.scheme, theirs.netloc)
        return bool(theirs.hostname) and (theirs.scheme == "https" or same)
