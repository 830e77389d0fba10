"""Vertex AI's protocols: `predict`, and those of the Gemini API for Google's newer models."""

from collections.abc import Mapping
from typing import Any

import msgspec

from embedway.core.batch import Batch, Result
from embedway.core.provider_error import ProviderError
from embedway.providers import failures, usage
from embedway.providers.adapter import HttpCall, Reply, Row, in_path, merge
from embedway.providers.adapters.gemini import Embedding
from embedway.providers.floats import malformed, parse, stack

_GEMINI = "gemini-embedding"
_NEWER = "gemini-embedding-2"
"""Not even a single item of it is taken by `predict`."""


class Statistics(msgspec.Struct):
    """Of one item; the count is at times written with a fraction of zero."""

    token_count: msgspec.Raw = msgspec.Raw()
    truncated: bool = False


class Embeddings(msgspec.Struct):
    """One vector, despite its name."""

    values: list[float]
    statistics: Statistics = msgspec.field(default_factory=Statistics)


class Prediction(msgspec.Struct):
    """What came of one item."""

    embeddings: Embeddings


class Predicted(msgspec.Struct):
    """The reply of `predict`."""

    predictions: list[Prediction] | None = None


class Embedded(msgspec.Struct, rename="camel"):
    """The reply of `embedContent`."""

    embedding: Embedding | None = None
    usage_metadata: msgspec.Raw = msgspec.Raw()
    truncated: bool = False


class BatchEmbedded(msgspec.Struct, rename="camel"):
    """The reply of `batchEmbedContents`."""

    embeddings: list[Embeddings] | None = None
    usage_metadata: msgspec.Raw = msgspec.Raw()
    truncated: bool = False


_PREDICTED = msgspec.json.Decoder(Predicted)
_EMBEDDED = msgspec.json.Decoder(Embedded)
_BATCH_EMBEDDED = msgspec.json.Decoder(BatchEmbedded)


class Vertex:
    """The adapter."""

    def __init__(self, row: Row, variables: Mapping[str, str]) -> None:  # noqa: ARG002
        self._row = row

    def encode(self, batch: Batch) -> HttpCall:
        """See `embedway.providers.adapter.Adapter.encode`."""
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
            path=f"{in_path(self._row.path, batch.model)}:{method}",
            body=merge(body, batch.extra),
        )

    def decode(self, reply: Reply, batch: Batch) -> Result:
        """See `embedway.providers.adapter.Adapter.decode`."""
        read = {
            "predict": self._predicted,
            "embedContent": self._embedded,
            "batchEmbedContents": self._batch_embedded,
        }[_method(batch)]
        values, tokens, truncated = read(reply)
        if truncated and batch.truncate == "none":
            malformed("an item was cut, which it was told not to do")
        return Result(vectors=stack(values, items=len(batch.items)), tokens=tokens)

    def error(self, reply: Reply) -> ProviderError:
        """See `embedway.providers.adapter.Adapter.error`."""
        return failures.read(reply, self._row.failures)

    def _predicted(self, reply: Reply) -> tuple[list[list[float]], int | None, bool]:
        answer = parse(_PREDICTED, reply)
        if answer.predictions is None:
            raise self.error(reply)
        given = [each.embeddings for each in answer.predictions]
        tokens = usage.total([usage.count(each.statistics.token_count) for each in given])
        return [each.values for each in given], tokens, any(e.statistics.truncated for e in given)

    def _embedded(self, reply: Reply) -> tuple[list[list[float]], int | None, bool]:
        answer = parse(_EMBEDDED, reply)
        if answer.embedding is None:
            raise self.error(reply)
        tokens = usage.tokens(answer.usage_metadata, "promptTokenCount")
        return [answer.embedding.values], tokens, answer.truncated

    def _batch_embedded(self, reply: Reply) -> tuple[list[list[float]], int | None, bool]:
        answer = parse(_BATCH_EMBEDDED, reply)
        if answer.embeddings is None:
            raise self.error(reply)
        tokens = usage.tokens(answer.usage_metadata, "promptTokenCount")
        cut = answer.truncated or any(each.statistics.truncated for each in answer.embeddings)
        return [each.values for each in answer.embeddings], tokens, cut


def _method(batch: Batch) -> str:
    # As Google's own package chooses, but that it has `embedContent` for each single item of a
    # Gemini model: what `predict` gives for gemini-embedding-001 is known from recorded replies.
    if len(batch.items) > 1 and batch.model.startswith(_GEMINI):
        return "batchEmbedContents"
    return "embedContent" if batch.model.startswith(_NEWER) else "predict"
