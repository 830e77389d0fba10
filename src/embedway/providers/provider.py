"""Embeds at one provider, with its row, adapter, credentials and connections."""

import importlib
import re
from collections.abc import Mapping
from typing import Any

import msgspec
import structlog

from embedway.concurrency.turns import run_in_turns
from embedway.core.batch import Batch, BatchLimits, BatchResult, EngineAbilities
from embedway.core.provider_error import ProviderError
from embedway.core.request import normalise_name
from embedway.http.call import HttpReply
from embedway.http.client import HttpClient, Transport
from embedway.providers import waits
from embedway.providers.adapter import Adapter
from embedway.providers.credentials import Credentials, StaticKeys
from embedway.providers.provider_config import ProviderConfig
from embedway.providers.reply_memory import ReplyMemory
from embedway.providers.secrets import SecretScanner
from embedway.providers.split import LARGE_BYTES, SplitReply, split

_log = structlog.get_logger("embedway.providers")

MAX_FLOAT_CHARACTERS = 32
MAX_EXTRA_CHARACTERS = 2**16
"""How much of a client's own fields is compared with a refusal. More would delay other requests."""
MAX_DIMENSIONS = 4096
"""The widest vectors to accept when the model's width is unknown. Bounds the reply we read."""


class Provider:
    """Embeds batches at one provider, as an `Engine` of `embedway.sending`."""

    def __init__(
        self,
        config: ProviderConfig,
        *,
        adapter: Adapter,
        credentials: Credentials,
        transport: Transport,
        float_adapter: Adapter | None = None,
    ) -> None:
        """Use `float_adapter` once the provider has refused the base64 that `adapter` asks for."""
        self._config = config
        self._adapter = adapter
        self._float_adapter = float_adapter or adapter
        self._credentials = credentials
        self._transport = transport
        self._base_url = config.url
        self._secrets = SecretScanner(config.keys)
        fields = config.row.fields
        names = {
            **dict.fromkeys(("input", "inputs", "texts", "text"), "input"),
            "model": "model",
            fields.dimensions: "dimensions",
            fields.user: "user",
            fields.input_type: "input_type",
            fields.truncate: "truncate",
        }
        self._params = {theirs: ours for theirs, ours in names.items() if theirs}
        """The client's fields by the provider's names for them."""
        self._abilities = EngineAbilities(
            token_ids=fields.token_ids,
            dimensions=fields.dimensions is not None,
            input_types=frozenset(fields.input_types),
            truncations=frozenset(fields.truncations),
        )

    @property
    def name(self) -> str:
        """The name in `provider:model`."""
        return self._config.name

    @property
    def limits(self) -> BatchLimits:
        """What one call may hold."""
        return self._config.limits or self._config.row.limits

    @property
    def abilities(self) -> EngineAbilities:
        """What a batch may ask for."""
        return self._abilities

    async def embed(self, batch: Batch) -> BatchResult:
        """Embed the items of `batch`.

        If the provider refuses the field that asks for base64, ask again without it, and leave it
        out from then on. Refusals are not billed.

        Raises:
            ProviderError: The call failed.
            InvalidRequest: The provider's protocol cannot express the batch.
            ServiceOverloaded: There is no room for the reply, so nothing was sent.
        """
        adapter = self._adapter
        try:
            return await self._embed(batch, adapter)
        except ProviderError as error:
            if adapter is self._float_adapter or not self._refuses_base64(error):
                raise
        result = await self._embed(batch, self._float_adapter)
        if self._adapter is adapter:  # concurrent calls may be refused too; log once
            self._adapter = self._float_adapter
            _log.warning("base64 refused", provider=self.name)
        return result

    def _refuses_base64(self, error: ProviderError) -> bool:
        base64 = self._config.row.fields.base64
        # Some refusals name the model too, and are taken for an unknown model.
        if base64 is None or error.kind not in {"request", "model"}:
            return False
        return normalise_name(error.field) == normalise_name(base64[0])

    async def _embed(self, batch: Batch, adapter: Adapter) -> BatchResult:
        call = adapter.encode(batch)
        try:
            headers = await self._credentials.headers(call, base_url=self._base_url)
        except ProviderError as error:
            error.billed = "not sent"
            raise
        except Exception as error:  # from the clouds' own libraries
            raise ProviderError("credentials", billed="not sent") from error
        width = batch.width or max(batch.dimensions or 0, MAX_DIMENSIONS)
        max_bytes = 2**20 + len(batch.items) * width * MAX_FLOAT_CHARACTERS
        reply = None
        memory = ReplyMemory(batch)
        try:
            reply = await self._transport.send(call, headers=headers, max_bytes=max_bytes)
            if len(reply.body) > LARGE_BYTES:
                memory.grow(len(reply.body))
                reply = await _split(reply, batch, width=width, sent_bytes=len(call.body))
            return self._decode(reply, batch, adapter)
        except ProviderError as error:
            memory.free()
            error.status = reply and reply.status
            if reply and reply.is_success and error.kind == "failed":
                error.billed = "yes"  # it answered, even if without vectors
            error.retry_immediately = self._credentials.report_failure(error, headers)
            if self._secrets.found_in(error.reason):
                error.reason = ""  # a provider may quote the key
            raise
        except BaseException:
            memory.free()
            raise

    async def aclose(self) -> None:
        """Close the connections."""
        await self._transport.aclose()
        await self._credentials.aclose()

    def _decode(self, reply: HttpReply, batch: Batch, adapter: Adapter) -> BatchResult:
        """Read the vectors in `reply`.

        Raises:
            ProviderError: The reply reports a failure, or cannot be read.
        """
        if batch.extra and not reply.is_success:
            reply = msgspec.structs.replace(reply, client_words=_words(batch.extra))
        try:
            if not reply.is_success:
                raise self._failure(reply, batch, adapter)
            result = adapter.decode(reply, batch)
            if isinstance(reply, SplitReply):
                reply.check_taken(result.vectors)
            rest_s = waits.rate_limit_rest_s(reply.headers)
        except ProviderError:
            raise
        except Exception as error:
            # If a reply breaks the code that reads it, the reply is at fault.
            billed = "yes" if reply.is_success else "maybe"
            raise ProviderError("malformed", billed=billed) from error
        return msgspec.structs.replace(result, rate_limit_rest_s=rest_s) if rest_s else result

    def _failure(self, reply: HttpReply, batch: Batch, adapter: Adapter) -> ProviderError:
        if reply.is_redirect:
            return ProviderError("malformed", "a redirect, which is not followed")
        error = adapter.decode_error(reply)
        error.param = self._params.get(error.field)
        if error.field in batch.fixed and error.kind == "request":
            # The operator set this field, so the client cannot fix it.
            error.kind, error.reason = "failed", ""
        elif error.field in batch.extra:
            error.param = error.field
        if error.param == "dimensions" and error.kind == "request":
            error.kind = "dimensions"
        if error.param != "input" or (error.item or 0) >= len(batch.items):
            error.item = None  # no item that the client sent
        return error


async def _split(reply: HttpReply, batch: Batch, *, width: int, sent_bytes: int) -> HttpReply:
    try:
        return await run_in_turns(
            split(reply, items=len(batch.items), width=width, sent_bytes=sent_bytes)
        )
    except ProviderError:
        if reply.is_success:
            raise
        return msgspec.structs.replace(reply, body=b"")  # the status says enough


def _words(extra: Mapping[str, Any]) -> frozenset[str]:
    """Return the words in the names and values of the client's own fields, in lower case."""
    text = f"{' '.join(extra)} {msgspec.json.encode(extra).decode()}"
    return frozenset(re.findall(r"\w+", text[:MAX_EXTRA_CHARACTERS].lower()))


def build_provider(config: ProviderConfig) -> Provider:
    """Build a provider. It opens no connection until it is used.

    Raises:
        ImportError: The provider's credentials need a package that is not installed.
        ValueError: The credentials or the base URL cannot be used.
    """
    row = config.row
    adapter = load_object(row.adapter)
    return Provider(
        config,
        adapter=adapter(row, config.values),
        float_adapter=adapter(row.without_base64(), config.values) if row.fields.base64 else None,
        credentials=_build_credentials(config),
        transport=HttpClient(
            config.url,
            allow_private=config.base_url is not None
            or row.own_server
            or row.base_url.startswith("{"),
            max_in_flight=config.max_in_flight or row.max_in_flight,
        ),
    )


def _build_credentials(config: ProviderConfig) -> Credentials:
    kind = config.row.credentials
    if ":" in kind and not kind.startswith("header:"):
        return load_object(kind)(config)
    name = kind.removeprefix("header:") if kind.startswith("header:") else None
    return StaticKeys(config.keys, header=name, extra_headers=config.headers)


def load_object(target: str) -> type:
    """Import the class that a row names as `module:class`."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)
