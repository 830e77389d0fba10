"""Pinecone's inference protocol: each text in an object, everything asked for in `parameters`."""

from typing import Any

import msgspec

from embedway.core.batch import Batch
from embedway.http.call import HttpCall
from embedway.providers.adapter import merge_extra
from embedway.providers.adapters.openai import CountedReplyBody, OpenAi
from embedway.providers.floats import malformed_error

_VERSION = "2026-07"
_DEFAULT = "passage"
"""The input type of clients that name none: most texts are stored to be found."""


class _Entry(msgspec.Struct):
    values: list[float] | None = None
    """None where the model makes sparse vectors."""


class _Answer(CountedReplyBody):
    data: list[_Entry] | None = None
    model: Any = None

    def values(self, batch: Batch) -> list[list[float]] | None:
        """The vectors, in the order of the items."""
        if self.data is None:
            return None
        values = [each.values for each in self.data if each.values is not None]
        if len(values) != len(self.data):
            malformed_error("sparse vectors")
        return values


class Pinecone(OpenAi):
    """Pinecone's words."""

    answer = _Answer

    def encode(self, batch: Batch) -> HttpCall:
        """Write the call; the version of the protocol is a header."""
        return HttpCall(
            path=self.path(batch),
            body=merge_extra(self.fields(batch), batch.extra),
            headers={"X-Pinecone-Api-Version": _VERSION},
        )

    def fields(self, batch: Batch) -> dict[str, Any]:
        """The body."""
        body = super().fields(batch)
        inputs = [{"text": item} for item in body.pop("input")]
        model = body.pop("model")
        return {"model": model, "inputs": inputs, "parameters": {"input_type": _DEFAULT, **body}}
