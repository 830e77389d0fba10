"""DashScope's native protocol; its OpenAI-compatible one cannot be told what vectors are for."""

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


class _Answer(CountedReplyBody):
    output: _Output | None = None

    def values(self, batch: Batch) -> Sequence[Value] | None:
        """The vectors by their index."""
        given = self.output and self.output.embeddings
        return (
            None
            if given is None
            else order_by_index(
                [each.text_index for each in given], [each.embedding for each in given]
            )
        )


class DashScope(OpenAi):
    """DashScope's words."""

    answer = _Answer

    def encode(self, batch: Batch) -> HttpCall:
        """Write the call that embeds `batch`."""
        asked = self.fields(batch)
        body: dict[str, Any] = {
            "model": asked.pop("model"),
            "input": {"texts": asked.pop("input")},
            # Whatever else there is to say goes here, a client's own parameters too.
            "parameters": msgspec.Raw(merge_extra(asked, batch.extra)),
        }
        return HttpCall(path=self.path(batch), body=msgspec.json.encode(body))
