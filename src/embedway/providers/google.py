"""Authenticates calls to Google's cloud, by tokens that Google's library gets."""

import asyncio
import importlib
import time
import warnings
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from yarl import URL

from embedway.core import extras
from embedway.core.provider_error import ProviderError
from embedway.http.call import HttpCall, HttpReply
from embedway.http.client import HttpClient
from embedway.providers.provider_config import ProviderConfig
from embedway.providers.refreshing import RefreshingCredential, Validity

_SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
_MAX_BYTES = 2**20
_TIMEOUT_S = 30.0
"""The longest call for a token. Google's library may set a shorter limit."""


class GoogleToken(RefreshingCredential):
    """A token for a credentials file, or for the credentials that Google's library finds."""

    def __init__(
        self, config: ProviderConfig, *, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        """Use the first key as the path of a credentials file.

        Without a key, Google's library looks in its usual places, last at the metadata server.

        Raises:
            ImportError: Google's library is not installed.
        """
        super().__init__(now_s=now_s)
        self._path = next(iter(config.keys), None)
        self._auth = _library("google.auth")
        self._exceptions = _library("google.auth.exceptions")
        states = _library("google.auth.credentials").TokenState
        self._validities: dict[Any, Validity] = {states.FRESH: "valid", states.STALE: "ending"}
        self._credentials: Any = None
        self._token: str | None = None
        self._servers: dict[str, HttpClient] = {}
        self._closed = False

    def validity(self) -> Validity:
        """Return whether the token can be used now."""
        if self._token is None:
            return "ended"
        return self._validities.get(self._credentials.token_state, "ended")

    def sign(self, call: HttpCall, base_url: str) -> Mapping[str, str]:  # noqa: ARG002
        """Return the headers with the token and those that Google's library adds."""
        headers: dict[str, str] = {}
        self._credentials.apply(headers)
        return headers

    def is_current(self, headers: Mapping[str, str]) -> bool:
        """Return whether a call with these headers used the current token."""
        return headers.get("authorization") == f"Bearer {self._token}"

    def drop(self) -> None:
        """Forget the token."""
        self._token = None

    async def aclose(self) -> None:
        """Close the connections, which ends a renewal in progress."""
        self._closed = True
        for server in self._servers.values():
            await server.aclose()
        if self._renewal.is_running:
            await self._renewal.wait()

    async def renew(self) -> None:
        """Get a token with Google's library in a thread, which sends calls by this event loop."""
        loop = asyncio.get_running_loop()

        def request(
            url: str,
            method: str = "GET",
            body: bytes | str | None = None,
            headers: Mapping[str, str] | None = None,
            timeout: float | None = None,
            **_: Any,
        ) -> "_Response":
            sending = self._send(url, method, body or b"", headers or {}, timeout or _TIMEOUT_S)
            try:
                return _Response(asyncio.run_coroutine_threadsafe(sending, loop).result())
            except (ProviderError, TimeoutError) as error:
                raise self._exceptions.TransportError(str(error)) from None

        def refresh() -> None:
            if self._credentials is None:
                self._credentials = self._find_credentials(request)
            self._credentials.refresh(request)

        try:
            await asyncio.to_thread(refresh)
        except self._exceptions.TransportError:
            raise ProviderError("unreachable") from None
        except self._exceptions.GoogleAuthError as error:
            raise ProviderError("failed" if error.retryable else "credentials") from None
        self._token = self._credentials.token

    def _find_credentials(self, request: Any) -> Any:
        if self._path is None:
            return self._auth.default(scopes=_SCOPES, request=request)[0]
        with warnings.catch_warnings():
            # It warns about files from strangers, but this one is the administrator's.
            warnings.simplefilter("ignore", DeprecationWarning)
            load = self._auth.load_credentials_from_file
            return load(self._path, scopes=_SCOPES, request=request)[0]

    async def _send(
        self, url: str, method: str, body: bytes | str, headers: Mapping[str, str], timeout_s: float
    ) -> HttpReply:
        target = URL(url)
        origin = str(target.origin())
        if self._closed:
            raise ProviderError("unreachable")
        if origin not in self._servers:
            # Google's library chose the address. The metadata server has a private one.
            self._servers[origin] = HttpClient(origin, allow_private=True, max_in_flight=1)
        call = HttpCall(
            path=target.raw_path_qs,
            method=method,
            body=body.encode() if isinstance(body, str) else body,
        )
        async with asyncio.timeout(min(timeout_s, _TIMEOUT_S)):
            return await self._servers[origin].send(call, headers=headers, max_bytes=_MAX_BYTES)


class _Response:
    """A reply as Google's library reads it."""

    def __init__(self, reply: HttpReply) -> None:
        self.status = reply.status
        self.headers = reply.headers
        self.data = reply.body


def _library(module: str) -> ModuleType:
    with extras.importing("vertex", "Vertex AI"):
        return importlib.import_module(module)
