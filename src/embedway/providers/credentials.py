"""Authenticates calls to a provider, by headers.

Everything here contains secrets. None is ever in a message, a log or a `repr`.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from embedway.core.provider_error import ProviderError
from embedway.http.call import HttpCall

REST_S = 60.0
"""How long a refused key is not used, if the provider has another."""


class Credentials(Protocol):
    """The credentials for one provider."""

    async def headers(self, call: HttpCall, *, base_url: str) -> Mapping[str, str]:
        """Return the headers that authenticate `call`.

        Raises:
            ProviderError: No valid credential is available.
        """
        ...

    def report_failure(self, error: ProviderError, headers: Mapping[str, str]) -> bool:
        """Record a call that failed with these headers; return whether to retry it at once."""
        ...

    async def aclose(self) -> None:
        """Cancel work in progress and close connections."""
        ...


class StaticKeys:
    """Static keys, used in turn. A key that is refused or rate-limited rests for a while."""

    def __init__(
        self,
        keys: Sequence[str],
        *,
        header: str | None = None,
        extra_headers: Mapping[str, str] | None = None,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Send a key in `header`, or as `Authorization: Bearer`, with the `extra_headers`."""
        self._headers: list[Mapping[str, str]] = [
            {
                **({header: key} if header else {"Authorization": f"Bearer {key}"}),
                **(extra_headers or {}),
            }
            for key in keys
        ]
        self._now_s = now_s
        self._rests_until_s = [0.0] * len(keys)
        self._turn = 0

    async def headers(self, call: HttpCall, *, base_url: str) -> Mapping[str, str]:  # noqa: ARG002
        """Return the headers with the next key that is not resting."""
        if not self._headers:
            return {}
        return self._headers[self._next_key() if len(self._headers) > 1 else 0]

    def report_failure(self, error: ProviderError, headers: Mapping[str, str]) -> bool:
        """Let a refused or rate-limited key rest; return whether another key can retry at once."""
        if len(self._headers) <= 1 or error.kind not in {"credentials", "quota", "rate_limit"}:
            return False
        rest_s = error.retry_after_s if error.retry_after_s is not None else REST_S
        self._rests_until_s[self._headers.index(headers)] = self._now_s() + rest_s
        return min(self._rests_until_s) <= self._now_s()

    async def aclose(self) -> None:
        """Do nothing."""

    def _next_key(self) -> int:
        count = len(self._headers)
        order = [(self._turn + step) % count for step in range(count)]
        self._turn = (self._turn + 1) % count
        now_s = self._now_s()
        # If all keys rest, use the one that rests the shortest time.
        return min(order, key=lambda at: max(self._rests_until_s[at] - now_s, 0.0))
