"""Credentials that end: one renewal at a time, before the end, and after a refusal."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Literal

from embedway.concurrency.single_flight import SingleFlight
from embedway.core.provider_error import ProviderError
from embedway.http.call import HttpCall

NEW_S = 60.0
"""A refusal of a credential younger than this has other reasons than its age."""
RETRY_S = 5.0
"""The pause after a renewal that failed, while the credential is still valid."""

Validity = Literal["valid", "ending", "ended"]


class RefreshingCredential(ABC):
    """A credential shared by all calls to one provider. Subclasses know how to get it and send it.

    Calls wait for a renewal only where there is no valid credential.
    """

    def __init__(self, *, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._renewed_s = self._failed_s = float("-inf")
        self._renewal = SingleFlight(self._try_to_renew)

    @abstractmethod
    def validity(self) -> Validity:
        """Whether the credential can be used now; renew it in the background while `ending`."""

    @abstractmethod
    async def renew(self) -> None:
        """Get the next credential. Errors must not repeat what the server said: it may be secret.

        Raises:
            ProviderError: There is none now.
        """

    @abstractmethod
    def sign(self, call: HttpCall, base_url: str) -> Mapping[str, str]:
        """The headers to send `call` with."""

    @abstractmethod
    def is_current(self, sent: Mapping[str, str]) -> bool:
        """Whether a call with the headers `sent` used the credential in force."""

    @abstractmethod
    def drop(self) -> None:
        """Forget the credential, because the provider refuses it."""

    async def headers(self, call: HttpCall, *, base_url: str) -> Mapping[str, str]:
        """The headers to send `call` with.

        Raises:
            ProviderError: There is no valid credential, nor can one be had.
        """
        validity = self.validity()
        if validity == "ended":
            if failed := await self._renewal.wait():
                raise ProviderError(failed.kind, retry_after_s=failed.retry_after_s)
        elif validity == "ending" and self._now_s() >= self._failed_s + RETRY_S:
            self._renewal.start()
        return self.sign(call, base_url)

    def report_failure(self, error: ProviderError, sent: Mapping[str, str]) -> bool:
        """Record a call that failed with the headers `sent`; return whether to retry it at once."""
        if error.kind != "credentials":
            return False
        if self.is_current(sent):
            if self._now_s() < self._renewed_s + NEW_S:
                return False
            self.drop()
        return True

    async def aclose(self) -> None:
        """Cancel a renewal under way."""
        await self._renewal.aclose()

    async def _try_to_renew(self) -> ProviderError | None:
        """Renew the credential; return what failed. Whoever waits raises an error of its own."""
        try:
            await self.renew()
        except ProviderError as error:
            failed = error
        except Exception:  # noqa: BLE001  # the clouds' libraries, on odd files and replies
            failed = ProviderError("credentials")
        else:
            self._renewed_s = self._now_s()
            return None
        self._failed_s = self._now_s()
        return failed
