"""How a call proves who sends it: the headers that a provider's kind of credentials needs.

Everything here holds secrets; none is ever in a message, a log or a `repr`.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from embedway.core.provider_error import ProviderError
from embedway.http.call import HttpCall

REST_S = 60.0
"""How long a key that was refused is left alone, if there is another."""


class Credentials(Protocol):
    """Of one provider."""

    async def headers(self, call: HttpCall, *, base_url: str) -> Mapping[str, str]:
        """The headers to send `call` with.

        Raises:
            ProviderError: They cannot be had.
        """
        ...

    def report_failure(self, error: ProviderError, sent: Mapping[str, str]) -> bool:
        """Told of a call that failed with the headers `sent`; returns whether to use others now."""
        ...

    async def aclose(self) -> None:
        """Ends what is under way."""
        ...


class StaticKeys:
    """One or several static keys, used in turn; one that is refused or limited rests a while."""

    def __init__(
        self,
        keys: Sequence[str],
        *,
        header: str | None = None,
        others: Mapping[str, str] | None = None,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Takes the keys.

        Args:
            keys: None for a provider that asks for none.
            header: That holds a key; None for `Authorization: Bearer`.
            others: Headers that are sent with each key.
            now_s: A clock.
        """
        self._headers: list[Mapping[str, str]] = [
            {**({header: key} if header else {"Authorization": f"Bearer {key}"}), **(others or {})}
            for key in keys
        ]
        self._now_s = now_s
        self._rests_until_s = [0.0] * len(keys)
        self._turn = 0

    async def headers(self, call: HttpCall, *, base_url: str) -> Mapping[str, str]:  # noqa: ARG002
        """See `Credentials.headers`."""
        if not self._headers:
            return {}
        return self._headers[self._awake() if len(self._headers) > 1 else 0]

    def report_failure(self, error: ProviderError, sent: Mapping[str, str]) -> bool:
        """See `Credentials.refused`."""
        if len(self._headers) <= 1 or error.kind not in {"credentials", "quota", "rate_limit"}:
            return False
        rest_s = error.retry_after_s if error.retry_after_s is not None else REST_S
        self._rests_until_s[self._headers.index(sent)] = self._now_s() + rest_s
        return min(self._rests_until_s) <= self._now_s()

    async def aclose(self) -> None:
        """See `Credentials.aclose`."""

    def _awake(self) -> int:
        count = len(self._headers)
        order = [(self._turn + step) % count for step in range(count)]
        self._turn = (self._turn + 1) % count
        now_s = self._now_s()
        # All at rest: the one that wakes first.
        return min(order, key=lambda at: max(self._rests_until_s[at] - now_s, 0.0))
