"""The entry: one object that holds the connection and all operations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING

import httpx

from embedway_sdk.authentication import Authentication
from embedway_sdk.client import DEFAULT_TIMEOUT_MS, Client, Hooks, Logger, Options, root_url
from embedway_sdk.embeddings import Embeddings
from embedway_sdk.organization import Organization
from embedway_sdk.retries import RetryConfig

if TYPE_CHECKING:
    from typing_extensions import Self


class LLM:
    """What models do."""

    def __init__(self, client: Client) -> None:
        self.embeddings = Embeddings(client)


class SDK:
    """A client of one Embedway gateway. It may be shared by threads.

    Every operation has two forms: `embed` waits, `embed_async` is a coroutine.
    """

    def __init__(
        self,
        bearer_auth: str | Callable[[], str] | None = None,
        *,
        server_url: str | None = None,
        timeout_ms: int = DEFAULT_TIMEOUT_MS,
        retry_config: RetryConfig | None = None,
        http_headers: Mapping[str, str] | None = None,
        client: httpx.Client | None = None,
        async_client: httpx.AsyncClient | None = None,
        hooks: Hooks | None = None,
        debug_logger: Logger | None = None,
    ) -> None:
        """Nothing is connected before the first call.

        Args:
            bearer_auth: A key or token, or a function that returns one, which is called for each
                try. Default: the environment variable EMBEDWAY_API_KEY.
            server_url: The gateway, such as `https://embed.example.com`. Default: the environment
                variable EMBEDWAY_BASE_URL, or else `http://127.0.0.1:8080`.
            timeout_ms: The longest wait for one try, in milliseconds.
            retry_config: Which failures to try again.
            http_headers: Headers to add to each request.
            client: An HTTP client of your own for the blocking methods. You close it.
            async_client: One for the asynchronous methods. You close it.
            hooks: Functions to call around each try.
            debug_logger: Gets a line for each request and answer, without key and texts. A
                `logging.Logger` will do.

        Raises:
            ValueError: `server_url` is no HTTP URL.
        """
        options = Options(
            bearer_auth=bearer_auth,
            server_url=root_url(server_url),
            timeout_ms=timeout_ms,
            retry_config=retry_config or RetryConfig(),
            http_headers=http_headers or {},
            hooks=hooks or Hooks(),
            debug_logger=debug_logger,
        )
        self._client = Client(options, client, async_client)
        self.llm = LLM(self._client)
        self.authentication = Authentication(self._client)
        self.organization = Organization(self._client)

    def close(self) -> None:
        """Close the connections of the blocking methods."""
        self._client.close()

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()
