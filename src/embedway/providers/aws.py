"""How Amazon Bedrock is told who calls: a signature of each call, or a Bedrock API key."""

import asyncio
import importlib
import logging
import re
import time
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from embedway.core.provider_error import ProviderError
from embedway.providers.adapter import HttpCall, joined
from embedway.providers.credentials import Keys
from embedway.providers.declared import Declared

_SERVICE = "bedrock"
_CONTENT_TYPE = "application/json"
_ID = re.compile(r"A[A-Z0-9]{15,127}", re.ASCII)
_STATIC = re.compile(rf"({_ID.pattern}):([^:]+)(?::(.+))?", re.ASCII)
_MARGIN_S = 900.0
"""How long before their end others are looked for; botocore has the same."""
_NEW_S = 60.0
"""Credentials as new as this are refused for other reasons than their age."""


class SigV4:
    """Signs with what botocore finds in its usual places, or with the key that is declared.

    A declared key is `ID:SECRET` or `ID:SECRET:TOKEN`; an ID alone, as it is in AWS_ACCESS_KEY_ID,
    only says that AWS is to be used, and botocore finds the rest. Anything else is a Bedrock API
    key, which needs no signature.
    """

    def __init__(self, declared: Declared, *, now_s: Callable[[], float] = time.monotonic) -> None:
        """Takes the key; nothing is looked for yet.

        Args:
            declared: The provider. Of several keys the first decides.
            now_s: A clock, for how old credentials are.

        Raises:
            ImportError: botocore is needed, but not installed.
            ValueError: No region is declared, or the key is of no known form.
        """
        variables = declared.values
        key = next(iter(declared.keys), "")
        static = _STATIC.fullmatch(key)
        self._bearer: Keys | None = None
        if ":" in key and not static:
            raise ValueError("Bedrock's key is ID:SECRET or ID:SECRET:TOKEN; the ID is not AWS'.")
        if key and not static and not _ID.fullmatch(key):
            self._bearer = Keys(declared.keys)
            return
        if "region" not in variables:
            raise ValueError("Bedrock needs a region to sign for. Set region, or AWS_REGION.")
        self._region = variables["region"]
        self._auth = _botocore("auth")
        # In detail it logs all that it signs, tokens too.
        logging.getLogger("botocore").setLevel(logging.WARNING)
        self._awsrequest = _botocore("awsrequest")
        self._now_s = now_s
        self._since_s = 0.0
        self._declared: Any = static and _botocore("credentials").Credentials(*static.groups())
        self._found: Any = None
        """What botocore found, which knows how to stay valid; asked in other threads only."""
        self._frozen: Any = self._declared
        self._refresh: asyncio.Task[ProviderError | None] | None = None

    async def headers(self, call: HttpCall, *, base_url: str) -> Mapping[str, str]:
        """See `embedway.providers.credentials.Credentials.headers`."""
        if self._bearer:
            return await self._bearer.headers(call, base_url=base_url)
        request = self._awsrequest.AWSRequest(
            method=call.method,
            url=joined(base_url, call.path),
            data=call.body,
            headers={"Content-Type": _CONTENT_TYPE, **call.headers},
        )
        self._auth.SigV4Auth(await self._valid(), _SERVICE, self._region).add_auth(request)
        return dict(request.headers.items())

    def refused(self, error: ProviderError, sent: Mapping[str, str]) -> bool:
        """See `embedway.providers.credentials.Credentials.refused`."""
        if self._bearer:
            return self._bearer.refused(error, sent)
        if error.kind != "credentials" or self._declared or self._now_s() < self._since_s + _NEW_S:
            return False
        self._found = self._frozen = None  # whoever logs in again writes others to the same place
        return True

    async def aclose(self) -> None:
        """Gives up looking for credentials."""
        if self._bearer is None and self._refresh:
            self._refresh.cancel()
            await asyncio.wait([self._refresh])

    async def _valid(self) -> Any:
        """Credentials that are valid now."""
        none = self._frozen is None or self._ends_within(0)
        if none or self._ends_within(_MARGIN_S):
            if self._refresh is None or self._refresh.done():
                self._refresh = asyncio.create_task(self._refreshed())
            # Minutes before their end they still are good: nobody waits for the next ones.
            if none and (failed := await asyncio.shield(self._refresh)):
                # It was everyone's: whoever gives up waiting leaves it to the others.
                raise ProviderError(failed.kind)
        return self._frozen

    def _ends_within(self, seconds: float) -> bool:
        needed = getattr(self._found, "refresh_needed", None)
        return needed is not None and needed(seconds)

    async def _refreshed(self) -> ProviderError | None:
        """Why there are no credentials, if so."""
        exceptions = _botocore("exceptions")
        known = self._found

        def find() -> Any:
            # Reads files and calls servers, for itself and in this thread's way.
            found = known or _botocore("session").get_session().get_credentials()
            return found, found and found.get_frozen_credentials()

        try:
            self._found, self._frozen = await asyncio.to_thread(find)
        except (exceptions.HTTPClientError, exceptions.ConnectionError):
            return ProviderError("unreachable")
        except Exception:  # noqa: BLE001  # botocore's own, and what it makes of an odd file or reply
            return ProviderError("credentials")
        if known is None:
            self._since_s = self._now_s()
        return None if self._frozen else ProviderError("credentials")


def _botocore(module: str) -> ModuleType:
    try:
        return importlib.import_module(f"botocore.{module}")
    except ImportError as error:
        raise ImportError("Bedrock needs AWS' signing: pip install 'embedway[bedrock]'") from error
