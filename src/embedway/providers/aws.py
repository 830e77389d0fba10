"""Authenticates calls to Amazon Bedrock, by SigV4 or by a Bedrock API key."""

import asyncio
import importlib
import logging
import re
import time
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from embedway.core import extras
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
    """Signs with the declared key, or with the credentials that botocore finds.

    A declared key is `ID:SECRET` or `ID:SECRET:TOKEN`. With an ID alone, as in AWS_ACCESS_KEY_ID,
    botocore finds the rest. Any other key is a Bedrock API key, which is sent as a bearer token.
    """

    def __init__(
        self, config: ProviderConfig, *, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        """Use the first declared key. Further Bedrock API keys are used in turn.

        Raises:
            ImportError: botocore is needed, but not installed.
            ValueError: No region is declared, or the key has no known form.
        """
        super().__init__(now_s=now_s)
        key = next(iter(config.keys), "")
        static = _STATIC.fullmatch(key)
        self._bearer: StaticKeys | None = None
        if ":" in key and not static:
            raise ValueError(
                "The key is not ID:SECRET or ID:SECRET:TOKEN with the ID of an AWS access key."
            )
        if key and not static and not _ID.fullmatch(key):
            self._bearer = StaticKeys(config.keys)
            return
        if "region" not in config.values:
            raise ValueError("Bedrock needs a region to sign for. Set region, or AWS_REGION.")
        self._region = config.values["region"]
        self._auth = _botocore("auth")
        # Its lower levels log everything it signs, including tokens.
        logging.getLogger("botocore").setLevel(logging.WARNING)
        self._awsrequest = _botocore("awsrequest")
        self._static: Any = static and _botocore("credentials").Credentials(*static.groups())
        self._source: Any = None
        """botocore's credentials, which renew themselves. Use them only in other threads."""
        self._frozen: Any = self._static

    async def headers(self, call: HttpCall, *, base_url: str) -> Mapping[str, str]:
        """Return the headers that authenticate `call`."""
        if self._bearer:
            return await self._bearer.headers(call, base_url=base_url)
        return await super().headers(call, base_url=base_url)

    def report_failure(self, error: ProviderError, headers: Mapping[str, str]) -> bool:
        """Record a call that failed; return whether to retry it at once with other credentials."""
        if self._bearer:
            return self._bearer.report_failure(error, headers)
        return not self._static and super().report_failure(error, headers)

    def validity(self) -> Validity:
        """Return whether the credentials can be used now."""
        if self._frozen is None or self._ends_within(0):
            return "ended"
        return "ending" if self._ends_within(_MARGIN_S) else "valid"

    def sign(self, call: HttpCall, base_url: str) -> Mapping[str, str]:
        """Return the headers of `call`, including its signature."""
        request = self._awsrequest.AWSRequest(
            method=call.method,
            url=join_url(base_url, call.path),
            data=call.body,
            headers={"Content-Type": _CONTENT_TYPE, **call.headers},
        )
        self._auth.SigV4Auth(self._frozen, _SERVICE, self._region).add_auth(request)
        return dict(request.headers.items())

    def is_current(self, headers: Mapping[str, str]) -> bool:  # noqa: ARG002
        """Return True: a signature does not show which credentials made it."""
        return True

    def drop(self) -> None:
        """Forget the credentials. botocore looks again, as a new login writes to the same place."""
        self._source = self._frozen = None

    async def renew(self) -> None:
        """Ask botocore for credentials in a thread, because it reads files and calls servers."""
        exceptions = _botocore("exceptions")

        def find() -> Any:
            source = self._source or _botocore("session").get_session().get_credentials()
            return source, source and source.get_frozen_credentials()

        try:
            self._source, self._frozen = await asyncio.to_thread(find)
        except (exceptions.HTTPClientError, exceptions.ConnectionError):
            raise ProviderError("unreachable") from None
        if not self._frozen:
            raise ProviderError("credentials")

    def _ends_within(self, seconds: float) -> bool:
        needed = getattr(self._source, "refresh_needed", None)
        return needed is not None and needed(seconds)


def _botocore(module: str) -> ModuleType:
    with extras.importing("bedrock", "Amazon Bedrock"):
        return importlib.import_module(f"botocore.{module}")
