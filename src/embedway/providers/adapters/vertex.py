"""Speaks Vertex AI's protocols: `predict`, and the Gemini API's for Google's newer models."""

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
"""`predict` does not take these models at all."""


class _Statistics(msgspec.Struct):
    token_count: msgspec.Raw = msgspec.Raw()
    """Sometimes written with a fraction, as `4.0`."""
    truncated: bool = False


class _Embeddings(msgspec.Struct):
    """One vector, despite Google's name."""

    values: list[float]
    statistics: _Statistics = msgspec.field(default_factory=_Statistics)


class _Prediction(msgspec.Struct):
    embeddings: _Embeddings


class _PredictBody(ReplyBody):
    predictions: list[_Prediction] | None = None

    def read_vectors(self, batch: Batch) -> list[list[float]] | None:
        """Return the vectors in the order of the items."""
        if self.predictions is None:
            return None
        return _require_uncut([each.embeddings for each in self.predictions], batch)

    def read_tokens(self) -> int | None:
        """Return the tokens of all items."""
        return usage.sum_counts(
            [
                usage.read_count(each.embeddings.statistics.token_count)
                for each in self.predictions or ()
            ]
        )


class _GeminiBody(GeminiReplyBody, rename="camel"):
    """The reply of `embedContent`, with one `embedding`, or of `batchEmbedContents`."""

    embedding: _Embeddings | None = None
    embeddings: list[_Embeddings] | None = None
    truncated: bool = False

    def read_vectors(self, batch: Batch) -> list[list[float]] | None:
        """Return the vectors in the order of the items."""
        vectors = [self.embedding] if self.embedding else self.embeddings
        if vectors is None:
            return None
        return _require_uncut(vectors, batch, is_truncated=self.truncated)


_PREDICT = msgspec.json.Decoder(_PredictBody)
_GEMINI = msgspec.json.Decoder(_GeminiBody)


class Vertex(OpenAi):
    """Chooses the protocol by the model and the number of items."""

    def encode(self, batch: Batch) -> HttpCall:
        """Build the call that embeds `batch`."""
        method = _method(batch)
        fields = self._row.fields
        purpose = fields.purpose(batch)
        options: dict[str, Any] = {}
        if batch.dimensions is not None:
            options["outputDimensionality"] = batch.dimensions
        if batch.truncate in fields.truncations:
            options["autoTruncate"] = fields.truncations[batch.truncate]
        if method != "predict":
            config = options | ({"taskType": purpose} if purpose else {})
            requests = [
                {"content": {"parts": [{"text": item}]}, "embedContentConfig": config}
                for item in batch.items
            ]
            body = requests[0] if method == "embedContent" else {"requests": requests}
        else:
            each = {"task_type": purpose} if purpose else {}
            body = {
                "instances": [{"content": item, **each} for item in batch.items],
                "parameters": options,
            }
        return HttpCall(
            path=f"{model_path(self._row.path, batch.model)}:{method}",
            body=merge_extra(body, batch.extra),
        )

    def decode(self, reply: HttpReply, batch: Batch) -> BatchResult:
        """Read the vectors of a 2xx reply."""
        decoder = _PREDICT if _method(batch) == "predict" else _GEMINI
        return self.decode_with(decoder, reply, batch)


def _require_uncut(
    vectors: Sequence[_Embeddings], batch: Batch, *, is_truncated: bool = False
) -> list[list[float]]:
    """Return the vectors; refuse them if an item was cut against the request."""
    is_truncated = is_truncated or any(each.statistics.truncated for each in vectors)
    if is_truncated and batch.truncate == "none":
        malformed_error("an item was cut against the request")
    return [each.values for each in vectors]


def _method(batch: Batch) -> str:
    # Google's own package chooses the same, but sends a single item of any Gemini model to
    # `embedContent`. How `predict` answers for gemini-embedding-001 is known from recordings.
    if len(batch.items) > 1 and batch.model.startswith(_GEMINIS):
        return "batchEmbedContents"
    return "embedContent" if batch.model.startswith(_NEWER) else "predict"
