"""One enabled provider: its row, its adapter, its credentials and its connections, as an engine."""

import importlib
import re
from collections.abc import Mapping
from typing import Any

import msgspec
import structlog

from embedway.core.batch import Batch, BatchLimits, BatchResult, EngineAbilities
from embedway.core.provider_error import ProviderError
from embedway.http.call import HttpReply
from embedway.http.client import HttpClient, Transport
from embedway.providers import credentials, waits
from embedway.providers.adapter import Adapter
from embedway.providers.credentials import Credentials
from embedway.providers.provider_config import ProviderConfig
from embedway.providers.secrets import SecretScanner

_log = structlog.get_logger("embedway.providers")

MAX_FLOAT_CHARACTERS = 32
MAX_EXTRA_CHARACTERS = 2**16
"""How much of the client's own fields is compared with a refusal; more would hold others up."""
MAX_DIMENSIONS = 4096
"""Of the widest vectors there commonly are; bounds a reply where the width is not known."""


class Provider:
    """Embeds batches at one provider."""

    def __init__(
        self,
        declared: ProviderConfig,
        *,
        adapter: Adapter,
        signer: Credentials,
        transport: Transport,
        plain: Adapter | None = None,
    ) -> None:
        self._declared = declared
        self._adapter = adapter
        self._plain = plain or adapter
        """Asks for numbers where `adapter` asks for base64."""
        self._signer = signer
        self._transport = transport
        self._base_url = declared.url
        self._secrets = SecretScanner(declared.keys)
        fields = declared.row.fields
        names = {
            **dict.fromkeys(("input", "inputs", "texts", "text"), "input"),
            "model": "model",
            fields.dimensions: "dimensions",
            fields.user: "user",
            fields.input_type: "input_type",
            fields.truncate: "truncate",
        }
        self._params = {theirs: ours for theirs, ours in names.items() if theirs}
        """The client's fields, by what the provider calls them."""
        self._abilities = EngineAbilities(
            token_ids=fields.token_ids,
            dimensions=fields.dimensions is not None,
            input_types=frozenset(fields.input_types),
            truncations=frozenset(fields.truncations),
        )

    @property
    def name(self) -> str:
        """In `provider:model`."""
        return self._declared.name

    @property
    def limits(self) -> BatchLimits:
        """Of a call."""
        return self._declared.limits or self._declared.row.limits

    @property
    def abilities(self) -> EngineAbilities:
        """See `embedway.sending.engine.Engine.abilities`."""
        return self._abilities

    async def embed(self, batch: Batch) -> BatchResult:
        """See `embedway.sending.engine.Engine.embed`.

        A server that refuses the field which asks for base64 is asked once more without it, and
        from then on always: a refusal is not billed.

        Raises:
            ProviderError: The call failed.
            InvalidRequest: The batch asks for something that cannot be said to this provider.
        """
        adapter = self._adapter
        try:
            return await self._embed(batch, adapter)
        except ProviderError as error:
            if adapter is self._plain or not self._refuses_base64(error):
                raise
        result = await self._embed(batch, self._plain)
        if self._adapter is adapter:  # the first of several that were refused at once
            self._adapter = self._plain
            _log.warning("base64 refused", provider=self.name)
        return result

    def _refuses_base64(self, error: ProviderError) -> bool:
        asked = self._declared.row.fields.base64
        # Some name the model beside the field, and so seem to know no such model.
        if asked is None or error.kind not in {"request", "model"}:
            return False
        return _plain(error.field) == _plain(asked[0])

    async def _embed(self, batch: Batch, adapter: Adapter) -> BatchResult:
        call = adapter.encode(batch)
        try:
            headers = await self._signer.headers(call, base_url=self._base_url)
        except ProviderError as error:
            error.billed = "not sent"
            raise
        except Exception as error:  # of the clouds' own libraries
            raise ProviderError("credentials", billed="not sent") from error
        width = batch.width or max(batch.dimensions or 0, MAX_DIMENSIONS)
        most = 2**20 + len(batch.items) * width * MAX_FLOAT_CHARACTERS
        reply = None
        try:
            reply = await self._transport.send(call, headers=headers, max_bytes=most)
            return self._read(reply, batch, adapter)
        except ProviderError as error:
            error.status = reply and reply.status
            if reply and reply.ok and error.kind == "failed":
                error.billed = "yes"  # an answer, if none that says anything
            error.retry_immediately = self._signer.report_failure(error, headers)
            if self._secrets.found_in(error.reason):
                error.reason = ""  # a provider may repeat what it was sent
            raise

    async def aclose(self) -> None:
        """Closes its connections."""
        await self._transport.aclose()
        await self._signer.aclose()

    def _read(self, reply: HttpReply, batch: Batch, adapter: Adapter) -> BatchResult:
        """The vectors in `reply`.

        Raises:
            ProviderError: It reports a failure, or cannot be read.
        """
        if batch.extra and not reply.ok:
            reply = msgspec.structs.replace(reply, clients_words=_words(batch.extra))
        try:
            if not reply.ok:
                raise self._failure(reply, batch, adapter)
            result = adapter.decode(reply, batch)
            rest_s = waits.rate_limit_rest_s(reply.headers)
        except ProviderError:
            raise
        except Exception as error:
            # Whatever a reply makes of the code that reads it, it is the reply that is wrong.
            billed = "yes" if reply.ok else "maybe"
            raise ProviderError("malformed", billed=billed) from error
        return msgspec.structs.replace(result, rate_limit_rest_s=rest_s) if rest_s else result

    def _failure(self, reply: HttpReply, batch: Batch, adapter: Adapter) -> ProviderError:
        if reply.redirect:
            return ProviderError("malformed", "a redirect, which is not followed")
        error = adapter.error(reply)
        error.param = self._params.get(error.field)
        if error.field in batch.fixed and error.kind == "request":
            error.kind, error.reason = "failed", ""  # no client can mend it
        elif error.field in batch.extra:
            error.param = error.field
        if error.param == "dimensions" and error.kind == "request":
            error.kind = "dimensions"
        if error.param != "input" or (error.item or 0) >= len(batch.items):
            error.item = None  # nothing that the client would recognise
        return error


def _plain(field: str) -> str:
    """The name of a field, the same in snake case and in camel case."""
    return field.replace("_", "").lower()


def _words(extra: Mapping[str, Any]) -> frozenset[str]:
    """The words of the client's own fields and of what it put there, in lower case."""
    said = f"{' '.join(extra)} {msgspec.json.encode(extra).decode()}"
    return frozenset(re.findall(r"\w+", said[:MAX_EXTRA_CHARACTERS].lower()))


def build_provider(declared: ProviderConfig) -> Provider:
    """The provider, with nothing opened yet."""
    row = declared.row
    return Provider(
        declared,
        adapter=load_object(row.adapter)(row, declared.values),
        plain=load_object(row.adapter)(row.without_base64(), declared.values)
        if row.fields.base64
        else None,
        signer=_signer(declared),
        transport=HttpClient(
            declared.url,
            allow_private=declared.base_url is not None
            or row.own_server
            or row.base_url.startswith("{"),
            max_in_flight=declared.max_in_flight or row.max_in_flight,
        ),
    )


def _signer(declared: ProviderConfig) -> Credentials:
    kind = declared.row.credentials
    if ":" in kind and not kind.startswith("header:"):
        return load_object(kind)(declared)
    name = kind.removeprefix("header:") if kind.startswith("header:") else None
    return credentials.StaticKeys(declared.keys, header=name, others=declared.headers)


def load_object(target: str) -> type:
    """The class that a row names as `module:class`."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)
