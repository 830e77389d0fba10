"""Speaks Pinecone's inference protocol, with texts as objects and options in `parameters`."""

from typing import Any

import msgspec

from embedway.core.batch import Batch
from embedway.http.call import HttpCall
from embedway.providers.adapter import merge_extra
from embedway.providers.adapters.openai import CountedReplyBody, OpenAi
from embedway.providers.floats import malformed_error

_VERSION = "2026-07"


class _Entry(msgspec.Struct):
    values: list[float] | None = None
    """None if the model makes sparse vectors."""


class _Body(CountedReplyBody):
    data: list[_Entry] | None = None
    model: Any = None

    def read_vectors(self, batch: Batch) -> list[list[float]] | None:
        """Return the vectors in the order of the items."""
        if self.data is None:
            return None
        values = [each.values for each in self.data if each.values is not None]
        if len(values) != len(self.data):
            malformed_error("sparse vectors")
        return values


class Pinecone(OpenAi):
    """Speaks Pinecone's inference protocol."""

    reply_body = _Body

    def encode(self, batch: Batch) -> HttpCall:
        """Build the call, with the protocol's version in a header."""
        return HttpCall(
            path=self.build_path(batch),
            body=merge_extra(self.build_body(batch), batch.extra),
            headers={"X-Pinecone-Api-Version": _VERSION},
        )

    def build_body(self, batch: Batch) -> dict[str, Any]:
        """Build the body."""
        body = super().build_body(batch)
        inputs = [{"text": item} for item in body.pop("input")]
        model = body.pop("model")
        return {"model": model, "inputs": inputs, "parameters": body}
