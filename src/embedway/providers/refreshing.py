"""Renews credentials that expire: one at a time, before they end or after a refusal."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Literal

from embedway.concurrency.single_flight import SingleFlight
from embedway.core.provider_error import ProviderError
from embedway.http.call import HttpCall

NEW_S = 60.0
"""The provider does not refuse a credential younger than this for its age."""
RETRY_S = 5.0
"""The pause after a renewal that failed, while the credential is still valid."""

Validity = Literal["valid", "ending", "ended"]


class RefreshingCredential(ABC):
    """A credential shared by all calls to one provider. Subclasses get it and sign calls.

    Calls wait for a renewal only while no credential is valid.
    """

    def __init__(self, *, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._renewed_s = self._failed_s = float("-inf")
        self._renewal = SingleFlight(self._try_to_renew)

    @abstractmethod
    def validity(self) -> Validity:
        """Return whether the credential can be used now. While `ending`, it is renewed too."""

    @abstractmethod
    async def renew(self) -> None:
        """Get the next credential. Errors must not quote the server, which may say secrets.

        Raises:
            ProviderError: No credential is available.
        """

    @abstractmethod
    def sign(self, call: HttpCall, base_url: str) -> Mapping[str, str]:
        """Return the headers that authenticate `call`."""

    @abstractmethod
    def is_current(self, headers: Mapping[str, str]) -> bool:
        """Return whether a call with these headers used the current credential."""

    @abstractmethod
    def drop(self) -> None:
        """Forget the credential, because the provider refused it."""

    async def headers(self, call: HttpCall, *, base_url: str) -> Mapping[str, str]:
        """Return the headers that authenticate `call`.

        Raises:
            ProviderError: No valid credential is available.
        """
        validity = self.validity()
        if validity == "ended":
            if failed := await self._renewal.wait():
                raise ProviderError(failed.kind, retry_after_s=failed.retry_after_s)
        elif validity == "ending" and self._now_s() >= self._failed_s + RETRY_S:
            self._renewal.start()
        return self.sign(call, base_url)

    def report_failure(self, error: ProviderError, headers: Mapping[str, str]) -> bool:
        """Record a call that failed with these headers; return whether to retry it at once."""
        if error.kind != "credentials":
            return False
        if self.is_current(headers):
            if self._now_s() < self._renewed_s + NEW_S:
                return False
            self.drop()
        return True

    async def aclose(self) -> None:
        """Cancel a renewal in progress."""
        await self._renewal.aclose()

    async def _try_to_renew(self) -> ProviderError | None:
        """Renew the credential; return the failure, from which each waiting call makes an error."""
        try:
            await self.renew()
        except ProviderError as error:
            failed = error
        except Exception:  # noqa: BLE001  # the clouds' libraries raise anything
            failed = ProviderError("credentials")
        else:
            self._renewed_s = self._now_s()
            return None
        self._failed_s = self._now_s()
        return failed
