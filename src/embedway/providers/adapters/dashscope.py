"""Speaks DashScope's native protocol, because its OpenAI-compatible one ignores input types."""

from collections.abc import Sequence
from typing import Any

import msgspec

from embedway.core.batch import Batch
from embedway.http.call import HttpCall
from embedway.providers.adapter import merge_extra
from embedway.providers.adapters.openai import CountedReplyBody, OpenAi
from embedway.providers.floats import Value, order_by_index


class _Embedding(msgspec.Struct):
    embedding: list[float]
    text_index: int | None = None


class _Output(msgspec.Struct):
    embeddings: list[_Embedding] | None = None


class _Body(CountedReplyBody):
    output: _Output | None = None

    def read_vectors(self, batch: Batch) -> Sequence[Value] | None:
        """Return the vectors in the order of their indices."""
        entries = self.output and self.output.embeddings
        if entries is None:
            return None
        return order_by_index(
            [each.text_index for each in entries], [each.embedding for each in entries]
        )


class DashScope(OpenAi):
    """Puts the texts into `input` and everything else into `parameters`."""

    reply_body = _Body

    def encode(self, batch: Batch) -> HttpCall:
        """Build the call that embeds `batch`."""
        fields = self.build_body(batch)
        body: dict[str, Any] = {
            "model": fields.pop("model"),
            "input": {"texts": fields.pop("input")},
            "parameters": msgspec.Raw(merge_extra(fields, batch.extra)),
        }
        return HttpCall(path=self.build_path(batch), body=msgspec.json.encode(body))
