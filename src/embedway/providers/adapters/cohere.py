"""Cohere's v2 protocol; of other hosts of its models, the body without the model and the reply."""

from typing import Any

import msgspec

from embedway.core.batch import Batch, Result
from embedway.providers import usage
from embedway.providers.adapter import HttpCall, Reply, merge
from embedway.providers.adapters.openai import OpenAi
from embedway.providers.floats import parse, stack

_DEFAULT = "search_document"
"""What a client means who says nothing: most of what is embedded is to be found, not to find."""


class ByType(msgspec.Struct):
    """The vectors in each encoding that was asked for."""

    as_base64: list[bytes] | None = msgspec.field(name="base64", default=None)
    as_floats: list[list[float]] | None = msgspec.field(name="float", default=None)


class Answer(msgspec.Struct):
    """The reply; its vectors are a plain list where no encoding could be asked for."""

    embeddings: ByType | list[list[float]] | None = None
    meta: msgspec.Raw = msgspec.Raw()


_DECODER = msgspec.json.Decoder(Answer)


class Cohere(OpenAi):
    """The adapter."""

    def encode(self, batch: Batch) -> HttpCall:
        """See `embedway.providers.adapter.Adapter.encode`."""
        body = {"model": batch.model, **self.fields(batch)}
        return HttpCall(path=self.path(batch), body=merge(body, batch.extra))

    def fields(self, batch: Batch) -> dict[str, Any]:
        """The body without the model, which other hosts want elsewhere."""
        body = {
            "input_type": _DEFAULT,
            "embedding_types": "float",
            **super().fields(batch),
        }
        body["texts"] = body.pop("input")
        body["embedding_types"] = [body["embedding_types"]]
        del body["model"]
        return body

    def decode(self, reply: Reply, batch: Batch) -> Result:
        """See `embedway.providers.adapter.Adapter.decode`."""
        answer = parse(_DECODER, reply)
        given = answer.embeddings
        if isinstance(given, ByType):
            given = given.as_floats if given.as_base64 is None else given.as_base64
        if given is None:
            raise self.error(reply)
        return Result(
            vectors=stack(given, items=len(batch.items)),
            tokens=usage.tokens(usage.within(answer.meta, "billed_units"), "input_tokens"),
        )
