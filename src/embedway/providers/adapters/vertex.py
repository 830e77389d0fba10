"""Vertex AI's protocols: `predict`, and those of the Gemini API for Google's newer models."""

from collections.abc import Sequence
from typing import Any

import msgspec

from embedway.core.batch import Batch, BatchResult
from embedway.http.call import HttpCall, HttpReply
from embedway.providers import usage
from embedway.providers.adapter import merge_extra, model_path
from embedway.providers.adapters.gemini import GeminiReplyBody
from embedway.providers.adapters.openai import OpenAi, ReplyBody
from embedway.providers.floats import malformed_error

_GEMINIS = "gemini-embedding"
_NEWER = "gemini-embedding-2"
"""Not even a single item of it is taken by `predict`."""


class _Statistics(msgspec.Struct):
    token_count: msgspec.Raw = msgspec.Raw()
    """At times written with a fraction of zero."""
    truncated: bool = False


class _Embeddings(msgspec.Struct):
    """One vector, despite its name there."""

    values: list[float]
    statistics: _Statistics = msgspec.field(default_factory=_Statistics)


class _Prediction(msgspec.Struct):
    embeddings: _Embeddings


class _PredictAnswer(ReplyBody):
    predictions: list[_Prediction] | None = None

    def values(self, batch: Batch) -> list[list[float]] | None:
        """The vectors, in the order of the items."""
        return (
            None
            if self.predictions is None
            else _whole([each.embeddings for each in self.predictions], batch)
        )

    def tokens(self) -> int | None:
        """The tokens of all items."""
        given = self.predictions or ()
        return usage.total([usage.count(each.embeddings.statistics.token_count) for each in given])


class _GeminiAnswer(GeminiReplyBody, rename="camel"):
    """The reply of `embedContent` with one `embedding`, of `batchEmbedContents` with several."""

    embedding: _Embeddings | None = None
    embeddings: list[_Embeddings] | None = None
    truncated: bool = False

    def values(self, batch: Batch) -> list[list[float]] | None:
        """The vectors, in the order of the items."""
        given = [self.embedding] if self.embedding else self.embeddings
        return None if given is None else _whole(given, batch, truncated=self.truncated)


_PREDICT = msgspec.json.Decoder(_PredictAnswer)
_GEMINI = msgspec.json.Decoder(_GeminiAnswer)


class Vertex(OpenAi):
    """Google's words in its cloud."""

    def encode(self, batch: Batch) -> HttpCall:
        """Write the call that embeds `batch`."""
        method = _method(batch)
        fields = self._row.fields
        purpose = fields.purpose(batch)
        asked: dict[str, Any] = {}
        if batch.dimensions is not None:
            asked["outputDimensionality"] = batch.dimensions
        if batch.truncate in fields.truncations:
            asked["autoTruncate"] = fields.truncations[batch.truncate]
        if method != "predict":
            config = asked | ({"taskType": purpose} if purpose else {})
            requests = [
                {"content": {"parts": [{"text": item}]}, "embedContentConfig": config}
                for item in batch.items
            ]
            body = requests[0] if method == "embedContent" else {"requests": requests}
        else:
            each = {"task_type": purpose} if purpose else {}
            body = {
                "instances": [{"content": item, **each} for item in batch.items],
                "parameters": asked,
            }
        return HttpCall(
            path=f"{model_path(self._row.path, batch.model)}:{method}",
            body=merge_extra(body, batch.extra),
        )

    def decode(self, reply: HttpReply, batch: Batch) -> BatchResult:
        """Read the vectors of a 2xx reply."""
        decoder = _PREDICT if _method(batch) == "predict" else _GEMINI
        return self.read(decoder, reply, batch)


def _whole(
    given: Sequence[_Embeddings], batch: Batch, *, truncated: bool = False
) -> list[list[float]]:
    """The vectors, refused if an item was cut that was not to be."""
    cut = truncated or any(each.statistics.truncated for each in given)
    if cut and batch.truncate == "none":
        malformed_error("an item was cut, which it was told not to do")
    return [each.values for each in given]


def _method(batch: Batch) -> str:
    # As Google's own package chooses, but that it has `embedContent` for each single item of a
    # Gemini model: what `predict` gives for gemini-embedding-001 is known from recorded replies.
    if len(batch.items) > 1 and batch.model.startswith(_GEMINIS):
        return "batchEmbedContents"
    return "embedContent" if batch.model.startswith(_NEWER) else "predict"
