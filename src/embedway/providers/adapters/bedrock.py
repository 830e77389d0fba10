"""Speaks Amazon Bedrock's `InvokeModel`, whose body depends on the model: Titan, Nova or Cohere.

The model's name shows which. It may follow a region, or be part of an ARN. Names of application
inference profiles do not show it, and then the base model does.
"""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import msgspec

from embedway.core.batch import Batch, BatchResult, clients_name
from embedway.core.errors import InvalidRequest
from embedway.core.provider_error import ProviderError
from embedway.http.call import HttpCall, HttpReply
from embedway.providers import failures, usage
from embedway.providers.adapter import ProviderRow, merge_extra
from embedway.providers.adapters.cohere import Cohere
from embedway.providers.adapters.openai import OpenAi, ReplyBody
from embedway.providers.floats import malformed_error

_COHERE, _TITAN_1, _TITAN_G1, _TITAN_2, _NOVA = DIALECTS = (
    "cohere.embed",
    "amazon.titan-embed-text-v1",
    "amazon.titan-embed-g1-text-02",
    "amazon.titan-embed-text-v2",
    "amazon.nova-2-multimodal-embeddings",
)
_PURPOSES = {
    None: "GENERIC_INDEX",
    "query": "TEXT_RETRIEVAL",
    "document": "GENERIC_INDEX",
    "classification": "CLASSIFICATION",
    "clustering": "CLUSTERING",
}
_COUNT = re.compile(r"\d{1,15}", re.ASCII)


class _ByType(msgspec.Struct):
    as_floats: list[float] | None = msgspec.field(name="float", default=None)


class _TitanBody(ReplyBody, rename="camel"):
    embedding: list[float] | None = None
    embeddings_by_type: _ByType = msgspec.field(default_factory=_ByType)
    input_text_token_count: msgspec.Raw = msgspec.Raw()

    def read_vectors(self, batch: Batch) -> list[list[float]] | None:
        """Return the vector of the only item."""
        value = self.embedding or self.embeddings_by_type.as_floats
        return None if value is None else [value]

    def read_tokens(self) -> int | None:
        """Return the tokens of the call."""
        return usage.read_count(self.input_text_token_count)


class _Segment(msgspec.Struct, rename="camel"):
    embedding: list[float]
    truncated_char_length: int | None = None
    """The remaining length of a text that was cut."""


class _NovaBody(ReplyBody):
    embeddings: list[_Segment] | None = None

    def read_vectors(self, batch: Batch) -> list[list[float]] | None:
        """Return the vector of the only item."""
        cut = any(each.truncated_char_length is not None for each in self.embeddings or ())
        if cut and batch.truncate == "none":
            malformed_error("the item was cut against the request")
        return None if self.embeddings is None else [each.embedding for each in self.embeddings]


_TITAN_DECODER = msgspec.json.Decoder(_TitanBody)
_NOVA_DECODER = msgspec.json.Decoder(_NovaBody)
_ANY_DECODER = msgspec.json.Decoder(dict[str, Any])


class Bedrock(OpenAi):
    """Speaks the dialect of each model's maker."""

    def __init__(self, row: ProviderRow, variables: Mapping[str, str]) -> None:
        super().__init__(row, variables)
        named = msgspec.structs.replace(row.fields, dimensions="output_dimension")
        self._cohere = Cohere(msgspec.structs.replace(row, fields=named), variables)

    def encode(self, batch: Batch) -> HttpCall:
        """Build the call that embeds `batch`."""
        dialect = _dialect(batch)
        if dialect != _COHERE and len(batch.items) > 1:
            raise InvalidRequest(
                f"{clients_name(batch.model)!r} takes one item a call. Send one, or have "
                "max_items = 1 set for it in this gateway's settings.",
                param="input",
            )
        if dialect == _COHERE:
            body = self._cohere.build_body(batch)
        elif dialect == _NOVA:
            body = self._to_nova(batch)
        else:
            body = _to_titan(batch, dialect)
        # Encode like AWS' own libraries, including the colon, because the path is signed.
        path = self._row.path.format(model=quote(batch.model, safe=""))
        return HttpCall(path=path, body=merge_extra(body, batch.extra))

    def decode(self, reply: HttpReply, batch: Batch) -> BatchResult:
        """Read the vectors of a 2xx reply."""
        dialect = _dialect(batch)
        if dialect == _COHERE:
            result = self._cohere.decode(reply, batch)
        else:
            result = self.decode_with(
                _NOVA_DECODER if dialect == _NOVA else _TITAN_DECODER, reply, batch
            )
        counted = reply.headers.get("x-amzn-bedrock-input-token-count", "")
        if result.tokens is None and _COUNT.fullmatch(counted):
            result = msgspec.structs.replace(result, tokens=int(counted))
        return result

    def decode_error(self, reply: HttpReply) -> ProviderError:
        """Read the failure that any other reply reports."""
        # Put the code from the header into the body, where `failures` reads it.
        code = reply.headers.get("x-amzn-errortype", "").partition(":")[0]
        try:
            content = _ANY_DECODER.decode(reply.body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            content = {}
        message = content.get("message") or content.get("Message")
        if code and isinstance(message, str | None):
            body = msgspec.json.encode({"code": code, "message": message or ""})
            reply = msgspec.structs.replace(reply, body=body)
        return failures.read_error(reply, self._row.failures)

    def _to_nova(self, batch: Batch) -> dict[str, Any]:
        mode = self._row.fields.truncations[batch.truncate]
        parameters: dict[str, Any] = {
            "embeddingPurpose": _PURPOSES[batch.input_type],
            "text": {"truncationMode": mode, "value": batch.items[0]},
        }
        if batch.dimensions is not None:
            parameters["embeddingDimension"] = batch.dimensions
        return {
            "schemaVersion": "nova-multimodal-embed-v1",
            "taskType": "SINGLE_EMBEDDING",
            "singleEmbeddingParams": parameters,
        }


def _dialect(batch: Batch) -> str:
    names = (batch.model, batch.base_model)
    dialect = next((each for name in names for each in DIALECTS if each in name), None)
    if dialect is None:
        raise InvalidRequest(
            f"{clients_name(batch.model)!r} is not the name of an embedding model of Cohere, "
            "Titan or Nova. Choose another, or have base_model set for it in this gateway's "
            "settings.",
            param="model",
        )
    return dialect


def _to_titan(batch: Batch, dialect: str) -> dict[str, Any]:
    if batch.truncate != "none":
        raise InvalidRequest(
            f"{clients_name(batch.model)!r} cannot truncate. Shorten the item.",
            param="truncate",
        )
    if dialect == _TITAN_2:
        width = {} if batch.dimensions is None else {"dimensions": batch.dimensions}
        return {
            "inputText": batch.items[0],
            **width,
            "normalize": True,
            "embeddingTypes": ["float"],
        }
    if batch.dimensions is not None:
        raise InvalidRequest(
            f"{clients_name(batch.model)!r} has only one width. Leave 'dimensions' out.",
            param="dimensions",
        )
    return {"inputText": batch.items[0]}
