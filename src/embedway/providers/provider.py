"""One enabled provider: its row, its adapter, its credentials and its connections, as an engine."""

import importlib

import msgspec

from embedway.core.batch import Abilities, Batch, Limits, Result
from embedway.core.provider_error import ProviderError
from embedway.providers import credentials, waits
from embedway.providers.adapter import Adapter, Reply
from embedway.providers.credentials import Credentials
from embedway.providers.declared import Declared
from embedway.providers.http import Http, Transport
from embedway.providers.secrets import Secrets

MAX_FLOAT_CHARACTERS = 32
MAX_WIDTH = 4096
"""Of the widest vectors there commonly are; bounds a reply where the width is not known."""


class Provider:
    """Embeds batches at one provider."""

    def __init__(
        self, declared: Declared, *, adapter: Adapter, signer: Credentials, transport: Transport
    ) -> None:
        self._declared = declared
        self._adapter = adapter
        self._signer = signer
        self._transport = transport
        self._base_url = declared.url
        self._secrets = Secrets(declared.keys)
        fields = declared.row.fields
        self._abilities = Abilities(
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
    def limits(self) -> Limits:
        """Of a call."""
        return self._declared.limits or self._declared.row.limits

    @property
    def abilities(self) -> Abilities:
        """See `embedway.ports.engine.Engine.abilities`."""
        return self._abilities

    async def embed(self, batch: Batch) -> Result:
        """See `embedway.ports.engine.Engine.embed`.

        Raises:
            ProviderError: The call failed.
            InvalidRequest: The batch asks for something that cannot be said to this provider.
        """
        call = self._adapter.encode(batch)
        try:
            headers = await self._signer.headers(call, base_url=self._base_url)
        except ProviderError as error:
            error.billed = "not sent"
            raise
        except Exception as error:  # of the clouds' own libraries
            raise ProviderError("credentials", billed="not sent") from error
        width = batch.width or MAX_WIDTH
        most = 2**20 + len(batch.items) * width * MAX_FLOAT_CHARACTERS
        reply = None
        try:
            reply = await self._transport.send(call, headers=headers, max_bytes=most)
            return self._read(reply, batch)
        except ProviderError as error:
            error.status = reply and reply.status
            if reply and reply.ok and error.kind == "failed":
                error.billed = "yes"  # an answer, if none that says anything
            error.again_now = self._signer.refused(error, headers)
            if self._secrets.in_text(error.reason):
                error.reason = ""  # a provider may repeat what it was sent
            raise

    async def aclose(self) -> None:
        """Closes its connections."""
        await self._transport.aclose()
        await self._signer.aclose()

    def _read(self, reply: Reply, batch: Batch) -> Result:
        """The vectors in `reply`.

        Raises:
            ProviderError: It reports a failure, or cannot be read.
        """
        try:
            if not reply.ok:
                raise self._failure(reply)
            result = self._adapter.decode(reply, batch)
            rest_s = waits.exhausted_s(reply.headers)
        except ProviderError:
            raise
        except Exception as error:
            # Whatever a reply makes of the code that reads it, it is the reply that is wrong.
            billed = "yes" if reply.ok else "maybe"
            raise ProviderError("malformed", billed=billed) from error
        return msgspec.structs.replace(result, rest_s=rest_s) if rest_s else result

    def _failure(self, reply: Reply) -> ProviderError:
        if reply.redirect:
            return ProviderError("malformed", "a redirect, which is not followed")
        return self._adapter.error(reply)


def build(declared: Declared) -> Provider:
    """The provider, with nothing opened yet."""
    row = declared.row
    return Provider(
        declared,
        adapter=load(row.adapter)(row, declared.values),
        signer=_signer(declared),
        transport=Http(
            declared.url,
            allow_private=declared.base_url is not None
            or row.own_server
            or row.base_url.startswith("{"),
            max_in_flight=declared.max_in_flight or row.max_in_flight,
        ),
    )


def _signer(declared: Declared) -> Credentials:
    kind = declared.row.credentials
    if ":" in kind and not kind.startswith("header:"):
        return load(kind)(declared)
    name = kind.removeprefix("header:") if kind.startswith("header:") else None
    return credentials.Keys(declared.keys, header=name, others=declared.headers)


def load(target: str) -> type:
    """The class that a row names as `module:class`."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)
