"""Sends calls: credentials, hooks, deadlines and retries, blocking or asynchronous.

A resource describes each of its calls as a `Call`, once. `blocking` and `asynchronous` make the two
public methods of that description.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import inspect
import json
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar
from weakref import WeakKeyDictionary

from embedway_sdk.errors import EmbedwayError, error_of, failure_of
from embedway_sdk.http import httpx
from embedway_sdk.retries import RetryConfig, is_free

T = TypeVar("T")
P = ParamSpec("P")
R = TypeVar("R", bound="Resource")
M = TypeVar("M", bound=Callable[..., object])

DEFAULT_URL = "http://127.0.0.1:8080"
URL_VARIABLE = "EMBEDWAY_BASE_URL"
KEY_VARIABLE = "EMBEDWAY_API_KEY"
DEFAULT_TIMEOUT_MS = 60_000
LIMITS = httpx.Limits(max_connections=1000, max_keepalive_connections=None)
"""Keep every connection: to open one for a call costs more than the call."""
USER_AGENT = f"embedway-sdk-python/{version('embedway-sdk')}"


class Logger(Protocol):
    """What `debug_logger` must have; a `logging.Logger` does."""

    def debug(self, msg: str, /, *args: Any) -> None:
        """Log a message with `%`-style arguments."""
        ...


@dataclass(frozen=True)
class Hooks:
    """Functions that are called around every try of every call."""

    before_request: Callable[[httpx.Request], httpx.Request | None] | None = None
    """Gets each request before it is sent, and may change it or return another."""
    after_response: Callable[[httpx.Response], None] | None = None
    """Gets each answer, whatever its status."""
    on_error: Callable[[EmbedwayError], None] | None = None
    """Gets each error: of a try that is repeated, and the one that the caller gets."""


@dataclass(frozen=True)
class Options:
    """What applies to a call unless the call says otherwise."""

    bearer_auth: str | Callable[[], str] | None = field(repr=False)
    server_url: str
    timeout_ms: int
    retry_config: RetryConfig
    http_headers: Mapping[str, str]
    hooks: Hooks
    debug_logger: Logger | None

    def token(self) -> str:
        """Return the key or token to send.

        Raises:
            EmbedwayError: There is none, or it has characters that no key has.
        """
        auth = self.bearer_auth
        if auth is None:
            auth = os.environ.get(KEY_VARIABLE)
        elif callable(auth):
            auth = auth()
            if not isinstance(auth, str):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise TypeError(f"bearer_auth returned a {type(auth).__name__}, not a str.")
        auth = (auth or "").strip()  # a key that was read from a file ends in a new line
        if not auth:
            raise EmbedwayError(f"There is no key. Pass bearer_auth, or set {KEY_VARIABLE}.")
        if not (auth.isascii() and auth.isprintable()):
            raise EmbedwayError("The key has characters that no key has. Copy it again.")
        return auth


def root_url(server_url: str | None) -> str:
    """Return the gateway's root: the URL given or set in the environment, without a `/v1`.

    Raises:
        ValueError: It is no HTTP URL.
    """
    named = server_url or os.environ.get(URL_VARIABLE) or DEFAULT_URL
    try:
        url = httpx.URL(named)
    except httpx.InvalidURL as error:
        raise ValueError(f"server_url {named!r} is no URL: {error}.") from None
    if url.userinfo or url.query or url.fragment:
        raise ValueError("server_url must have no user, password, query or fragment.")
    if url.scheme not in {"http", "https"} or not url.host:
        raise ValueError(f"server_url {named!r} must look like {DEFAULT_URL!r}.")
    return named.rstrip("/").removesuffix("/v1").rstrip("/")


@dataclass(frozen=True)
class Call(Generic[T]):
    """One operation of the API: what to send, and how to read the answer."""

    method: str
    path: str
    parse: Callable[[httpx.Response], T]
    query: Mapping[str, Any] = field(default_factory=dict[str, Any])
    body: Mapping[str, Any] | None = None
    http_headers: Mapping[str, str] = field(default_factory=dict[str, str])
    timeout_ms: int | None = None
    retries: RetryConfig | None = None
    is_safe: bool = False
    """Whether to make the call twice changes and costs nothing."""

    def changed(self, **changes: Any) -> Call[T]:
        """Return a copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    @functools.cached_property
    def content(self) -> bytes | None:
        """The body as UTF-8 JSON."""
        if self.body is None:
            return None
        dump = functools.partial(json.dumps, self.body, allow_nan=False, default=_plain)
        try:
            return dump(ensure_ascii=False).encode()
        except UnicodeEncodeError:  # half of a surrogate pair: the server says which input has it
            return dump().encode()


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return vars(value)
    if hasattr(value, "tolist"):  # NumPy's arrays and numbers, pandas' columns
        return value.tolist()
    raise TypeError(f"{type(value).__name__} cannot be sent as JSON: {value!r:.60}")


class _Deadline(httpx.SyncByteStream, httpx.AsyncByteStream):
    """The body of an answer, whose parts must arrive before `end_s` of the monotonic clock."""

    def __init__(self, response: httpx.Response, end_s: float) -> None:
        self._stream: Any = response.stream
        self._request = response.request
        self._end_s = end_s

    def _check(self) -> None:
        if time.monotonic() > self._end_s:
            raise httpx.ReadTimeout("the answer takes too long", request=self._request)

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._stream:
            self._check()
            yield chunk

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._stream:
            self._check()
            yield chunk

    def close(self) -> None:
        self._stream.close()

    async def aclose(self) -> None:
        await self._stream.aclose()


class _Tries(Generic[T]):
    """The tries of one call: makes each request, and decides what follows from its outcome."""

    def __init__(self, call: Call[T], options: Options) -> None:
        self._call = call
        self._options = options
        self._timeout_ms = options.timeout_ms if call.timeout_ms is None else call.timeout_ms
        if self._timeout_ms <= 0:
            raise ValueError(f"timeout_ms {self._timeout_ms} must be more than 0.")
        self._retry_config = options.retry_config if call.retries is None else call.retries
        if not isinstance(self._retry_config, RetryConfig):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"retries {self._retry_config!r} must be a RetryConfig.")
        self._retries = 0
        self._begin_s = self._try_s = time.monotonic()

    def request(self, http: httpx.Client | httpx.AsyncClient) -> httpx.Request:
        """Return the next request to send."""
        self._try_s = time.monotonic()
        call, options = self._call, self._options
        headers = httpx.Headers({"user-agent": USER_AGENT})
        if call.body is not None:
            headers["content-type"] = "application/json"
        for more in (options.http_headers, call.http_headers):
            headers.update(more)
        headers["authorization"] = f"Bearer {options.token()}"
        request = http.build_request(
            call.method,
            options.server_url + call.path,
            params=call.query or None,
            content=call.content,
            headers=headers,
        )
        if options.hooks.before_request:
            request = options.hooks.before_request(request) or request
        timeout = httpx.Timeout(self._timeout_ms / 1000).as_dict()
        request.extensions = {**request.extensions, "timeout": timeout}
        self._log("%s %s", request.method, request.url)
        return request

    def limit(self, response: httpx.Response) -> httpx.Response:
        """Return the response, whose body is yet to be read, with the try's deadline."""
        response.stream = _Deadline(response, self._try_s + self._timeout_ms / 1000)
        return response

    def result(self, response: httpx.Response) -> T:
        """Return the call's result.

        Raises:
            EmbedwayError: The answer is an error, or not what was asked for.
        """
        elapsed_ms = (time.monotonic() - self._try_s) * 1000
        request_id = response.headers.get("x-request-id")
        self._log("%s in %.1f ms, request id %s", response.status_code, elapsed_ms, request_id)
        if self._options.hooks.after_response:
            self._options.hooks.after_response(response)
        if not response.is_success:
            raise error_of(response)
        return self._call.parse(response)

    def wait_s(self, error: EmbedwayError | httpx.RequestError) -> float:
        """Return the seconds to wait before the next try.

        Raises:
            EmbedwayError: There is to be none.
        """
        cause = error if isinstance(error, httpx.RequestError) else None
        if isinstance(error, httpx.RequestError):
            error = failure_of(error, timeout_ms=self._timeout_ms)
        if self._options.hooks.on_error:
            self._options.hooks.on_error(error)
        wait_s = self._retry_config.wait_s(
            error,
            retries=self._retries,
            elapsed_s=time.monotonic() - self._begin_s,
            is_safe=self._call.is_safe,
        )
        if wait_s is None:
            raise error from cause
        self._retries += not is_free(error)
        self._log("Trying again in %.1f s: %s", wait_s, type(error).__name__)
        return wait_s

    def _log(self, message: str, *values: object) -> None:
        if self._options.debug_logger:
            self._options.debug_logger.debug(message, *values)


class Client:
    """The two HTTP clients, made when first needed, and what calls have in common."""

    def __init__(
        self,
        options: Options,
        client: httpx.Client | None = None,
        async_client: httpx.AsyncClient | None = None,
    ) -> None:
        self.options = options
        self._given = client
        self._async_given = async_client
        self._owned: httpx.Client | None = None
        self._async_owned: WeakKeyDictionary[asyncio.AbstractEventLoop, httpx.AsyncClient]
        self._async_owned = WeakKeyDictionary()
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._is_closed = False

    def run(self, call: Call[T], *, stop: threading.Event | None = None) -> T:
        """Make a call, and wait for its result; give up waits and retries once `stop` is set."""
        http = self._given or self._own()
        tries = _Tries(call, self.options)
        while True:
            request = tries.request(http)
            try:
                response = tries.limit(http.send(request, stream=True))
                try:
                    response.read()
                finally:
                    response.close()
                return tries.result(response)
            except (EmbedwayError, httpx.RequestError) as error:
                wait_s = tries.wait_s(error)
                if stop and stop.wait(wait_s):
                    raise
            if not stop:
                time.sleep(wait_s)

    async def run_async(self, call: Call[T]) -> T:
        """Make a call, and await its result."""
        http = self._async_given or self._async_own()
        tries = _Tries(call, self.options)
        while True:
            request = tries.request(http)
            try:
                response = tries.limit(await http.send(request, stream=True))
                try:
                    await response.aread()
                finally:
                    await response.aclose()
                return tries.result(response)
            except (EmbedwayError, httpx.RequestError) as error:
                wait_s = tries.wait_s(error)
            await asyncio.sleep(wait_s)

    def _own(self) -> httpx.Client:
        with self._opening():
            if self._owned is None:
                self._owned = httpx.Client(limits=LIMITS)
            return self._owned

    def _async_own(self) -> httpx.AsyncClient:
        # Connections cannot outlive their event loop: each `asyncio.run` needs a client of its own.
        loop = asyncio.get_running_loop()
        with self._opening():
            if loop not in self._async_owned:
                self._async_owned[loop] = httpx.AsyncClient(limits=LIMITS)
            return self._async_owned[loop]

    @contextlib.contextmanager
    def _opening(self) -> Generator[None, None, None]:
        """Hold the lock, because threads may make their first calls together."""
        if self._is_closed:
            raise RuntimeError("This SDK is closed. Make a new one.")
        if self._process != os.getpid():
            # A forked process must not use the connections that it shares with its parent.
            self._process, self._lock = os.getpid(), threading.Lock()
            self._owned, self._async_owned = None, WeakKeyDictionary()
        with self._lock:
            yield

    def close(self) -> None:
        """Close the blocking client, unless it is the caller's own."""
        self._is_closed = True
        if self._owned:
            self._owned.close()

    async def aclose(self) -> None:
        """Close both clients, unless they are the caller's own."""
        self.close()
        if http := self._async_owned.pop(asyncio.get_running_loop(), None):
            await http.aclose()


class Resource:
    """A group of operations."""

    def __init__(self, client: Client) -> None:
        self._client = client


def blocking(build: Callable[Concatenate[R, P], Call[T]]) -> Callable[Concatenate[R, P], T]:
    """Make a method that waits for the result of the call that `build` describes."""

    def method(self: R, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return _client_of(self).run(build(self, *args, **kwargs))

    return _described(method, build, suffix="")


def asynchronous(
    build: Callable[Concatenate[R, P], Call[T]],
) -> Callable[Concatenate[R, P], Coroutine[Any, Any, T]]:
    """Make a coroutine method of the call that `build` describes."""

    async def method(self: R, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await _client_of(self).run_async(build(self, *args, **kwargs))

    return _described(method, build, suffix="_async")


def _described(method: M, build: Callable[..., object], *, suffix: str) -> M:
    """Give a method the name, the documentation and the signature that `help` shows."""
    build.__qualname__ = build.__qualname__.replace("._", ".")  # for the message of a wrong call
    functools.update_wrapper(method, build)
    method.__name__ = build.__name__.removeprefix("_") + suffix
    signature = inspect.signature(build)
    result = str(signature.return_annotation).removeprefix("Call[").removesuffix("]")
    method.__dict__["__signature__"] = signature.replace(return_annotation=result)
    return method


def _client_of(resource: Resource) -> Client:
    return resource._client  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
