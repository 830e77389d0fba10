"""Speaks Cohere's v2 protocol. Other hosts of its models share its body and its reply."""

from collections.abc import Sequence
from typing import Any

import msgspec

from embedway.core.batch import Batch
from embedway.http.call import HttpCall
from embedway.providers import usage
from embedway.providers.adapter import merge_extra
from embedway.providers.adapters.openai import OpenAi, ReplyBody
from embedway.providers.floats import Value


class _ByEncoding(msgspec.Struct):
    as_base64: list[str] | None = msgspec.field(name="base64", default=None)
    as_floats: list[list[float]] | None = msgspec.field(name="float", default=None)


class _Body(ReplyBody):
    embeddings: _ByEncoding | list[list[float]] | None = None
    """A plain list from hosts without a choice of encoding."""
    meta: msgspec.Raw = msgspec.Raw()

    def read_vectors(self, batch: Batch) -> Sequence[Value] | None:
        """Return the vectors in the order of the items."""
        vectors = self.embeddings
        if isinstance(vectors, _ByEncoding):
            return vectors.as_floats if vectors.as_base64 is None else vectors.as_base64
        return vectors

    def read_tokens(self) -> int | None:
        """Return the billed tokens."""
        return usage.read_tokens(usage.read_field(self.meta, "billed_units"), "input_tokens")


class Cohere(OpenAi):
    """Speaks Cohere's v2 protocol."""

    reply_body = _Body

    def encode(self, batch: Batch) -> HttpCall:
        """Build the call that embeds `batch`."""
        body = {"model": batch.model, **self.build_body(batch)}
        return HttpCall(path=self.build_path(batch), body=merge_extra(body, batch.extra))

    def build_body(self, batch: Batch) -> dict[str, Any]:
        """Build the body without the model, which other hosts take elsewhere."""
        body = {"embedding_types": "float", **super().build_body(batch)}
        body["texts"] = body.pop("input")
        body["embedding_types"] = [body["embedding_types"]]
        del body["model"]
        return body
