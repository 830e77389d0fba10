"""Amazon Bedrock's `InvokeModel`, whose body is each model maker's own: Titan's, Nova's, Cohere's.

The name of the model says whose. It may have a region before it, or be part of an ARN. That of an
application inference profile does not say it: then the base model does.
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


class _TitanAnswer(ReplyBody, rename="camel"):
    embedding: list[float] | None = None
    embeddings_by_type: _ByType = msgspec.field(default_factory=_ByType)
    input_text_token_count: msgspec.Raw = msgspec.Raw()

    def values(self, batch: Batch) -> list[list[float]] | None:
        """The vector of the one item."""
        value = self.embedding or self.embeddings_by_type.as_floats
        return None if value is None else [value]

    def tokens(self) -> int | None:
        """The tokens of the call."""
        return usage.count(self.input_text_token_count)


class _Segment(msgspec.Struct, rename="camel"):
    embedding: list[float]
    truncated_char_length: int | None = None
    """How much was left of a text that was cut."""


class _NovaAnswer(ReplyBody):
    embeddings: list[_Segment] | None = None

    def values(self, batch: Batch) -> list[list[float]] | None:
        """The vector of the one item."""
        cut = any(each.truncated_char_length is not None for each in self.embeddings or ())
        if cut and batch.truncate == "none":
            malformed_error("the item was cut, which it was told not to do")
        return None if self.embeddings is None else [each.embedding for each in self.embeddings]


_OF_TITAN = msgspec.json.Decoder(_TitanAnswer)
_OF_NOVA = msgspec.json.Decoder(_NovaAnswer)
_ANY = msgspec.json.Decoder(dict[str, Any])


class Bedrock(OpenAi):
    """Each maker's words, by the name of the model."""

    def __init__(self, row: ProviderRow, variables: Mapping[str, str]) -> None:
        super().__init__(row, variables)
        named = msgspec.structs.replace(row.fields, dimensions="output_dimension")
        self._cohere = Cohere(msgspec.structs.replace(row, fields=named), variables)

    def encode(self, batch: Batch) -> HttpCall:
        """Write the call that embeds `batch`."""
        dialect = _dialect(batch)
        if dialect != _COHERE and len(batch.items) > 1:
            raise InvalidRequest(
                f"{clients_name(batch.model)!r} takes one item a call. Send one, or have "
                "max_items = 1 set for it in this gateway's settings.",
                param="input",
            )
        if dialect == _COHERE:
            body = self._cohere.fields(batch)
        elif dialect == _NOVA:
            body = self._to_nova(batch)
        else:
            body = _to_titan(batch, dialect)
        # Encoded as AWS' own libraries do, down to the colon: this is also what is signed.
        path = self._row.path.format(model=quote(batch.model, safe=""))
        return HttpCall(path=path, body=merge_extra(body, batch.extra))

    def decode(self, reply: HttpReply, batch: Batch) -> BatchResult:
        """Read the vectors of a 2xx reply."""
        dialect = _dialect(batch)
        if dialect == _COHERE:
            result = self._cohere.decode(reply, batch)
        else:
            result = self.read(_OF_NOVA if dialect == _NOVA else _OF_TITAN, reply, batch)
        counted = reply.headers.get("x-amzn-bedrock-input-token-count", "")
        if result.tokens is None and _COUNT.fullmatch(counted):
            result = msgspec.structs.replace(result, tokens=int(counted))
        return result

    def error(self, reply: HttpReply) -> ProviderError:
        """Read the failure that any other reply reports."""
        # What failed is in a header, of which the table knows nothing.
        code = reply.headers.get("x-amzn-errortype", "").partition(":")[0]
        try:
            said = _ANY.decode(reply.body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            said = {}
        message = said.get("message") or said.get("Message")
        if code and isinstance(message, str | None):
            body = msgspec.json.encode({"code": code, "message": message or ""})
            reply = msgspec.structs.replace(reply, body=body)
        return failures.read_error(reply, self._row.failures)

    def _to_nova(self, batch: Batch) -> dict[str, Any]:
        mode = self._row.fields.truncations[batch.truncate]
        asked: dict[str, Any] = {
            "embeddingPurpose": _PURPOSES[batch.input_type],
            "text": {"truncationMode": mode, "value": batch.items[0]},
        }
        if batch.dimensions is not None:
            asked["embeddingDimension"] = batch.dimensions
        return {
            "schemaVersion": "nova-multimodal-embed-v1",
            "taskType": "SINGLE_EMBEDDING",
            "singleEmbeddingParams": asked,
        }


def _dialect(batch: Batch) -> str:
    names = (batch.model, batch.base_model)
    found = next((each for name in names for each in DIALECTS if each in name), None)
    if found is None:
        raise InvalidRequest(
            f"{clients_name(batch.model)!r} is not the name of an embedding model of Cohere, "
            "Titan or Nova. Choose one by a name that says which it is, or have base_model set "
            "for it in this gateway's settings.",
            param="model",
        )
    return found


def _to_titan(batch: Batch, dialect: str) -> dict[str, Any]:
    if batch.truncate != "none":
        raise InvalidRequest(
            f"{clients_name(batch.model)!r} cannot be told to cut. Shorten the item.",
            param="truncate",
        )
    if dialect == _TITAN_2:
        width = {} if batch.dimensions is None else {"dimensions": batch.dimensions}
        asked = {"normalize": True, "embeddingTypes": ["float"]}
        return {"inputText": batch.items[0], **width, **asked}
    if batch.dimensions is not None:
        raise InvalidRequest(
            f"{clients_name(batch.model)!r} has vectors of one width. Leave 'dimensions' out.",
            param="dimensions",
        )
    return {"inputText": batch.items[0]}
