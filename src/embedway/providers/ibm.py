"""How IBM's cloud is told who calls: an API key, exchanged for a token that lasts an hour."""

import asyncio
import time
from collections.abc import Callable, Mapping
from urllib.parse import urlencode

import msgspec

from embedway.core.provider_error import TRANSIENT, ProviderError
from embedway.providers import failures
from embedway.providers.adapter import HttpCall
from embedway.providers.declared import Declared
from embedway.providers.http import Http

_GRANT = "urn:ibm:params:oauth:grant-type:apikey"
_FORM = {"Content-Type": "application/x-www-form-urlencoded"}
_MAX_BYTES = 2**16
_EXCHANGE_TIMEOUT_S = 30.0
_MARGIN_S = 60.0
"""How long before its end a token is not used any more."""
_NEW_S = 60.0
"""A token as new as this is refused for other reasons than its age."""


class _Token(msgspec.Struct):
    access_token: str
    expires_in: int


_DECODER = msgspec.json.Decoder(_Token)


class IamToken:
    """The token of one API key, shared by all calls."""

    def __init__(self, declared: Declared, *, now_s: Callable[[], float] = time.monotonic) -> None:
        """Takes the key; nothing is exchanged yet.

        Args:
            declared: The provider. Of several keys the first is used.
            now_s: A clock.
        """
        self._key = next(iter(declared.keys), None)
        self._now_s = now_s
        self._http = Http(
            declared.values["iam_url"],
            allow_private="iam_url" in declared.variables,
            max_in_flight=1,
        )
        self._headers: Mapping[str, str] = {}
        self._since_s = self._until_s = now_s()
        self._exchange: asyncio.Task[ProviderError | None] | None = None

    async def headers(self, call: HttpCall, *, base_url: str) -> Mapping[str, str]:  # noqa: ARG002
        """See `embedway.providers.credentials.Credentials.headers`."""
        if self._key is not None and self._now_s() >= self._until_s:
            if self._exchange is None or self._exchange.done():
                self._exchange = asyncio.create_task(self._exchanged(self._key))
            # It is everyone's: whoever gives up waiting leaves it to the others.
            if failed := await asyncio.shield(self._exchange):
                raise ProviderError(failed.kind, retry_after_s=failed.retry_after_s)
        return self._headers

    def refused(self, error: ProviderError, sent: Mapping[str, str]) -> bool:
        """See `embedway.providers.credentials.Credentials.refused`."""
        if error.kind != "credentials" or not sent:
            return False
        if sent == self._headers:
            now_s = self._now_s()
            if now_s < self._since_s + _NEW_S:
                return False
            self._until_s = now_s
        return True

    async def aclose(self) -> None:
        """Gives up an exchange under way and closes the connections."""
        if self._exchange:
            self._exchange.cancel()
            await asyncio.wait([self._exchange])
        await self._http.aclose()

    async def _exchanged(self, key: str) -> ProviderError | None:
        """Why there is no token, if so. What IAM says stays here: it may repeat the key."""
        form = urlencode({"grant_type": _GRANT, "apikey": key}).encode()
        call = HttpCall(path="/identity/token", body=form, headers=_FORM)
        try:
            async with asyncio.timeout(_EXCHANGE_TIMEOUT_S):
                reply = await self._http.send(call, headers={}, max_bytes=_MAX_BYTES)
        except TimeoutError:
            return ProviderError("timeout")
        except ProviderError as error:
            return error
        if not reply.ok:
            error = failures.read(reply)
            return error if error.kind in TRANSIENT else ProviderError("credentials")
        try:
            token = _DECODER.decode(reply.body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return ProviderError("malformed")
        self._headers = {"Authorization": f"Bearer {token.access_token}"}
        self._since_s = self._now_s()
        self._until_s = self._since_s + token.expires_in - _MARGIN_S
        return None
