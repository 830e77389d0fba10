"""Authenticates calls to IBM's cloud, by an API key exchanged for a token that lasts an hour."""

import asyncio
import time
from collections.abc import Callable, Mapping
from urllib.parse import urlencode

import msgspec

from embedway.core.provider_error import TRANSIENT, ProviderError
from embedway.http.call import HttpCall
from embedway.http.client import HttpClient
from embedway.providers import failures
from embedway.providers.floats import parse_body
from embedway.providers.provider_config import ProviderConfig
from embedway.providers.refreshing import RefreshingCredential, Validity

_GRANT = "urn:ibm:params:oauth:grant-type:apikey"
_FORM = {"Content-Type": "application/x-www-form-urlencoded"}
_MAX_BYTES = 2**16
_EXCHANGE_TIMEOUT_S = 30.0
_MARGIN_S = 60.0
"""Stop using a token this long before it expires."""
_RENEW_SHARE = 0.9
"""Renew a token after this share of its lifetime."""


class _Token(msgspec.Struct):
    access_token: str
    expires_in: int


_DECODER = msgspec.json.Decoder(_Token)


class IamToken(RefreshingCredential):
    """A token for the first declared key."""

    def __init__(
        self, config: ProviderConfig, *, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(now_s=now_s)
        self._key = next(iter(config.keys), None)
        self._http = HttpClient(
            config.values["iam_url"],
            allow_private="iam_url" in config.variables,
            max_in_flight=1,
        )
        self._headers: Mapping[str, str] = {}
        self._due_s = self._until_s = now_s()

    def validity(self) -> Validity:
        """Return whether the token can be used now. Without a key, nothing is renewed."""
        now_s = self._now_s()
        if self._key is None or now_s < min(self._due_s, self._until_s):
            return "valid"
        return "ending" if now_s < self._until_s else "ended"

    def sign(self, call: HttpCall, base_url: str) -> Mapping[str, str]:  # noqa: ARG002
        """Return the header with the token; none without a key."""
        return self._headers

    def is_current(self, headers: Mapping[str, str]) -> bool:
        """Return whether a call with these headers used the current token."""
        return headers == self._headers

    def report_failure(self, error: ProviderError, headers: Mapping[str, str]) -> bool:
        """Record a call that failed; return whether to retry it at once with another token."""
        return bool(headers) and super().report_failure(error, headers)

    def drop(self) -> None:
        """Stop using the token."""
        self._until_s = self._now_s()

    async def aclose(self) -> None:
        """Cancel an exchange in progress and close the connections."""
        await super().aclose()
        await self._http.aclose()

    async def renew(self) -> None:
        """Exchange the key for a token."""
        form = urlencode({"grant_type": _GRANT, "apikey": self._key}).encode()
        call = HttpCall(path="/identity/token", body=form, headers=_FORM)
        try:
            async with asyncio.timeout(_EXCHANGE_TIMEOUT_S):
                reply = await self._http.send(call, headers={}, max_bytes=_MAX_BYTES)
        except TimeoutError:
            raise ProviderError("timeout") from None
        if not reply.is_success:
            error = failures.read_error(reply)
            raise error if error.kind in TRANSIENT else ProviderError("credentials")
        token = parse_body(_DECODER, reply)
        self._headers = {"Authorization": f"Bearer {token.access_token}"}
        now_s = self._now_s()
        self._due_s = now_s + token.expires_in * _RENEW_SHARE
        self._until_s = now_s + token.expires_in - _MARGIN_S
