"""How Google's cloud is told who calls: tokens that Google's library gets, sent for by our own."""

import asyncio
import importlib
import time
import warnings
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from yarl import URL

from embedway.core.provider_error import ProviderError
from embedway.providers.adapter import HttpCall, Reply
from embedway.providers.declared import Declared
from embedway.providers.http import Http

_SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
_MAX_BYTES = 2**20
_TIMEOUT_S = 30.0
"""Of a call for a token, if Google's library names none or a longer one."""
_NEW_S = 60.0
"""A token as new as this is refused for other reasons than its age."""


class GoogleToken:
    """The token of one file of credentials, or of whatever Google's library finds."""

    def __init__(self, declared: Declared, *, now_s: Callable[[], float] = time.monotonic) -> None:
        """Takes the path; nothing is read yet.

        Args:
            declared: The provider. Its first key is the path of a file; without one, Google's
                library looks in its usual places, the last of which is the machine's own server.
            now_s: A clock, for how old a token is.

        Raises:
            ImportError: Google's library is not installed.
        """
        self._path = next(iter(declared.keys), None)
        self._auth = _library("google.auth")
        self._exceptions = _library("google.auth.exceptions")
        self._states = _library("google.auth.credentials").TokenState
        self._now_s = now_s
        self._since_s = 0.0
        self._credentials: Any = None
        self._token: str | None = None
        self._refresh: asyncio.Task[ProviderError | None] | None = None
        self._servers: dict[str, Http] = {}
        self._closed = False

    async def headers(self, call: HttpCall, *, base_url: str) -> Mapping[str, str]:  # noqa: ARG002
        """See `embedway.providers.credentials.Credentials.headers`."""
        state = self._state()
        if state is not self._states.FRESH:
            if self._refresh is None or self._refresh.done():
                self._refresh = asyncio.create_task(self._refreshed())
            # Minutes before its end a token still is good: nobody waits for the next one.
            if state is self._states.INVALID and (
                # It is everyone's: whoever gives up waiting leaves it to the others.
                failed := await asyncio.shield(self._refresh)
            ):
                raise ProviderError(failed.kind)
        headers: dict[str, str] = {}
        self._credentials.apply(headers)
        return headers

    def refused(self, error: ProviderError, sent: Mapping[str, str]) -> bool:
        """See `embedway.providers.credentials.Credentials.refused`."""
        if error.kind != "credentials":
            return False
        if sent.get("authorization") == f"Bearer {self._token}":
            if self._now_s() < self._since_s + _NEW_S:
                return False
            self._token = None
        return True

    async def aclose(self) -> None:
        """Gives up a refresh under way and closes the connections."""
        self._closed = True
        for server in self._servers.values():
            await server.aclose()
        if self._refresh:
            await asyncio.wait([self._refresh])

    def _state(self) -> Any:
        return self._credentials.token_state if self._token else self._states.INVALID

    async def _refreshed(self) -> ProviderError | None:
        """Why there is no token, if so. What Google says stays here: it may repeat secrets."""
        loop = asyncio.get_running_loop()

        def request(
            url: str,
            method: str = "GET",
            body: bytes | str | None = None,
            headers: Mapping[str, str] | None = None,
            timeout: float | None = None,
            **_: Any,
        ) -> "_Response":
            sent = self._send(url, method, body or b"", headers or {}, timeout or _TIMEOUT_S)
            try:
                return _Response(asyncio.run_coroutine_threadsafe(sent, loop).result())
            except (ProviderError, TimeoutError) as error:
                raise self._exceptions.TransportError(str(error)) from None

        def refresh() -> None:
            if self._credentials is None:
                self._credentials = self._found(request)
            self._credentials.refresh(request)

        try:
            await asyncio.to_thread(refresh)
        except self._exceptions.TransportError:
            return ProviderError("unreachable")
        except self._exceptions.GoogleAuthError as error:
            return ProviderError("failed" if error.retryable else "credentials")
        except Exception:  # noqa: BLE001  # a file that is none, a reply that is no token
            return ProviderError("credentials")
        self._token = self._credentials.token
        self._since_s = self._now_s()
        return None

    def _found(self, request: Any) -> Any:
        if self._path is None:
            return self._auth.default(scopes=_SCOPES, request=request)[0]
        with warnings.catch_warnings():
            # It warns of files by strangers; this one is the administrator's.
            warnings.simplefilter("ignore", DeprecationWarning)
            load = self._auth.load_credentials_from_file
            return load(self._path, scopes=_SCOPES, request=request)[0]

    async def _send(
        self, url: str, method: str, body: bytes | str, headers: Mapping[str, str], timeout_s: float
    ) -> Reply:
        target = URL(url)
        origin = str(target.origin())
        if self._closed:
            raise ProviderError("unreachable")
        if origin not in self._servers:
            # Google's library chose it; the machine's own server is at a private address.
            self._servers[origin] = Http(origin, allow_private=True, max_in_flight=1)
        call = HttpCall(
            path=target.raw_path_qs,
            method=method,
            body=body.encode() if isinstance(body, str) else body,
        )
        async with asyncio.timeout(min(timeout_s, _TIMEOUT_S)):
            return await self._servers[origin].send(call, headers=headers, max_bytes=_MAX_BYTES)


class _Response:
    """A reply as Google's library reads it."""

    def __init__(self, reply: Reply) -> None:
        self.status = reply.status
        self.headers = reply.headers
        self.data = reply.body


def _library(module: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            "Vertex AI needs Google's sign-in: pip install 'embedway[vertex]'"
        ) from error
