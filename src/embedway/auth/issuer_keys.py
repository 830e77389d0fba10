"""Defines an outside issuer of tokens, and fetches and caches its signing keys.

The constants below bound how often callers can make the gateway fetch. The `fetch` function that is
passed in decides how, and from which addresses.
"""

from collections.abc import Awaitable, Callable, Sequence
from urllib.parse import urlsplit

import msgspec
import structlog

from embedway.auth import public_keys
from embedway.auth.public_keys import PublicKey
from embedway.concurrency.single_flight import SingleFlight
from embedway.core.errors import StorageUnavailable
from embedway.core.keys import Scope

REFRESH_S = 600.0
"""Fetch keys again at this age; use the old ones meanwhile."""
RETRY_AFTER_S = 30.0
"""Wait this long before fetching again for an unknown key, or after a failed fetch."""
FIRST_RETRY_AFTER_S = 2.0
"""Wait this long after a failed fetch while no keys are cached."""
MAX_AGE_S = 24 * 3600.0
"""Use cached keys for at most this long when they cannot be fetched."""
MAX_WAITING = 64
"""The most requests that wait for one fetch. Further ones get a 503."""

_DISCOVERY = "/.well-known/openid-configuration"
_log = structlog.get_logger("embedway.auth")

Fetch = Callable[[str], Awaitable[bytes]]
"""Returns the document at a URL, or raises `OSError` with the reason."""


class Issuer(msgspec.Struct, frozen=True, kw_only=True):
    """An outside issuer, as configured by the administrator."""

    name: str
    issuer: str
    """The exact `iss` of its tokens."""
    audiences: tuple[str, ...]
    """The accepted audiences; a token must name one of them."""
    jwks_url: str | None = None
    """The URL of its keys; None to look it up in its OpenID configuration."""
    algorithms: tuple[str, ...] = ("RS256", "ES256")
    project: str | None = None
    """The project of its tokens; None if each token names one in `project_claim`."""
    project_claim: str | None = None
    user_claim: str = "sub"
    """The claim that names the end user."""
    scopes: tuple[Scope, ...] = ("embeddings",)
    """The scopes of its tokens. With `scopes_claim`, the most they may have."""
    scopes_claim: str | None = None
    leeway_s: float = 30


class _Configuration(msgspec.Struct):
    """The fields used of OpenID Connect's discovery document."""

    issuer: str
    jwks_uri: str


class IssuerKeys:
    """The public keys of one issuer."""

    def __init__(self, issuer: Issuer, *, fetch: Fetch, now_s: Callable[[], float]) -> None:
        self.issuer = issuer
        self._fetch = fetch
        self._now_s = now_s
        self._keys: Sequence[PublicKey] | None = None
        self._fetched_s = self._attempted_s = float("-inf")
        self._fetching = SingleFlight(self._refresh)
        self._waiting = 0

    async def find(self, kid: str | None, algorithm: str) -> PublicKey | None:
        """Return the key with this id and algorithm; without an id, the only key of the algorithm.

        Raises:
            StorageUnavailable: No keys are cached and they cannot be fetched now.
        """
        age_s = self._now_s() - self._fetched_s
        if age_s >= MAX_AGE_S:
            self._keys = None
            await self._wait_for_refresh(FIRST_RETRY_AFTER_S)
        elif age_s >= REFRESH_S:
            self._start(RETRY_AFTER_S)
        key = self._choose(kid, algorithm)
        if key is None and kid is not None:
            await self._wait_for_refresh(RETRY_AFTER_S)
            key = self._choose(kid, algorithm)
        return key

    async def aclose(self) -> None:
        """Cancel the fetch in progress."""
        await self._fetching.aclose()

    def _choose(self, kid: str | None, algorithm: str) -> PublicKey | None:
        if self._keys is None:
            raise StorageUnavailable(
                f"The keys of the issuer {self.issuer.name!r} cannot be fetched right now. "
                "Try again."
            )
        candidates = [each for each in self._keys if each.supports(algorithm)]
        if kid is None:
            return candidates[0] if len(candidates) == 1 else None
        return next((each for each in candidates if each.kid == kid), None)

    async def _wait_for_refresh(self, retry_after_s: float) -> None:
        """Wait for the fetch in progress, or start one if it is due."""
        if not self._start(retry_after_s):
            return
        if self._waiting >= MAX_WAITING:
            raise StorageUnavailable(
                f"The keys of the issuer {self.issuer.name!r} are being fetched. Try again."
            )
        self._waiting += 1
        try:
            await self._fetching.wait()
        finally:
            self._waiting -= 1

    def _start(self, retry_after_s: float) -> bool:
        """Start a fetch if one is due; return whether one is in progress."""
        if not self._fetching.is_running and self._now_s() - self._attempted_s >= retry_after_s:
            self._attempted_s = self._now_s()
            self._fetching.start()
        return self._fetching.is_running

    async def _refresh(self) -> None:
        try:
            keys = public_keys.parse_public_keys(
                await self._fetch(self.issuer.jwks_url or await self._discover_url())
            )
        except (OSError, ValueError) as error:
            _log.warning("issuer's keys not fetched", issuer=self.issuer.name, reason=str(error))
        else:
            if not keys:
                _log.warning("issuer publishes no key that can be used", issuer=self.issuer.name)
            self._keys, self._fetched_s = keys, self._now_s()

    async def _discover_url(self) -> str:
        document = await self._fetch(self.issuer.issuer.rstrip("/") + _DISCOVERY)
        try:
            configuration = msgspec.json.decode(document, type=_Configuration)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise ValueError(f"it is not a configuration: {error}") from None
        if configuration.issuer != self.issuer.issuer:
            raise ValueError("its configuration is for another issuer")
        if not self._is_trusted(configuration.jwks_uri):
            raise ValueError("its configuration has no jwks_uri that begins with https://")
        return configuration.jwks_uri

    def _is_trusted(self, url: str) -> bool:
        # Only the host that the administrator configured may go without TLS.
        ours, theirs = urlsplit(self.issuer.issuer), urlsplit(url)
        same = (ours.scheme, ours.netloc) == (theirs.scheme, theirs.netloc)
        return bool(theirs.hostname) and (theirs.scheme == "https" or same)
