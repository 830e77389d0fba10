"""Authenticates calls to Amazon Bedrock, by SigV4 or by a Bedrock API key."""

import asyncio
import importlib
import logging
import re
import time
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from embedway.core.provider_error import ProviderError
from embedway.http.call import HttpCall, join_url
from embedway.providers.credentials import StaticKeys
from embedway.providers.provider_config import ProviderConfig
from embedway.providers.refreshing import RefreshingCredential, Validity

_SERVICE = "bedrock"
_CONTENT_TYPE = "application/json"
_ID = re.compile(r"A[A-Z0-9]{15,127}", re.ASCII)
_STATIC = re.compile(rf"({_ID.pattern}):([^:]+)(?::(.+))?", re.ASCII)
_MARGIN_S = 900.0
"""Renew credentials this long before they end, as botocore does."""


class SigV4(RefreshingCredential):
    """Signs with the credentials that botocore finds, or with the declared key.

    A declared key is `ID:SECRET` or `ID:SECRET:TOKEN`. An ID alone, as in AWS_ACCESS_KEY_ID, only
    says to use AWS, and botocore finds the rest. Any other key is a Bedrock API key, which is sent
    as it is.
    """

    def __init__(
        self, declared: ProviderConfig, *, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        """Take the key; of several, the first decides.

        Raises:
            ImportError: botocore is needed, but not installed.
            ValueError: No region is declared, or the key is of no known form.
        """
        super().__init__(now_s=now_s)
        variables = declared.values
        key = next(iter(declared.keys), "")
        static = _STATIC.fullmatch(key)
        self._bearer: StaticKeys | None = None
        if ":" in key and not static:
            raise ValueError("Bedrock's key is ID:SECRET or ID:SECRET:TOKEN; the ID is not AWS'.")
        if key and not static and not _ID.fullmatch(key):
            self._bearer = StaticKeys(declared.keys)
            return
        if "region" not in variables:
            raise ValueError("Bedrock needs a region to sign for. Set region, or AWS_REGION.")
        self._region = variables["region"]
        self._auth = _botocore("auth")
        # At lower levels it logs everything it signs, tokens included.
        logging.getLogger("botocore").setLevel(logging.WARNING)
        self._awsrequest = _botocore("awsrequest")
        self._declared: Any = static and _botocore("credentials").Credentials(*static.groups())
        self._found: Any = None
        """What botocore found, which can renew itself; used in other threads only."""
        self._frozen: Any = self._declared

    async def headers(self, call: HttpCall, *, base_url: str) -> Mapping[str, str]:
        """The headers to send `call` with."""
        if self._bearer:
            return await self._bearer.headers(call, base_url=base_url)
        return await super().headers(call, base_url=base_url)

    def report_failure(self, error: ProviderError, sent: Mapping[str, str]) -> bool:
        """Record a call that failed; return whether to retry it at once with other credentials."""
        if self._bearer:
            return self._bearer.report_failure(error, sent)
        return not self._declared and super().report_failure(error, sent)

    def validity(self) -> Validity:
        """Whether the credentials can be used now."""
        if self._frozen is None or self._ends_within(0):
            return "ended"
        return "ending" if self._ends_within(_MARGIN_S) else "valid"

    def sign(self, call: HttpCall, base_url: str) -> Mapping[str, str]:
        """The headers of `call`, its signature among them."""
        request = self._awsrequest.AWSRequest(
            method=call.method,
            url=join_url(base_url, call.path),
            data=call.body,
            headers={"Content-Type": _CONTENT_TYPE, **call.headers},
        )
        self._auth.SigV4Auth(self._frozen, _SERVICE, self._region).add_auth(request)
        return dict(request.headers.items())

    def is_current(self, sent: Mapping[str, str]) -> bool:  # noqa: ARG002
        """Assume that every signature was made with the credentials in force."""
        return True

    def drop(self) -> None:
        """Have botocore look again: whoever logs in anew writes to the same place."""
        self._found = self._frozen = None

    async def renew(self) -> None:
        """Ask botocore for credentials, in a thread: it reads files and calls servers."""
        exceptions = _botocore("exceptions")

        def find() -> Any:
            found = self._found or _botocore("session").get_session().get_credentials()
            return found, found and found.get_frozen_credentials()

        try:
            self._found, self._frozen = await asyncio.to_thread(find)
        except (exceptions.HTTPClientError, exceptions.ConnectionError):
            raise ProviderError("unreachable") from None
        if not self._frozen:
            raise ProviderError("credentials")

    def _ends_within(self, seconds: float) -> bool:
        needed = getattr(self._found, "refresh_needed", None)
        return needed is not None and needed(seconds)


def _botocore(module: str) -> ModuleType:
    try:
        return importlib.import_module(f"botocore.{module}")
    except ImportError as error:
        raise ImportError("Bedrock needs AWS' signing: pip install 'embedway[bedrock]'") from error
