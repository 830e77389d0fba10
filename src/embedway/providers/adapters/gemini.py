"""The Gemini API's `batchEmbedContents`, also for a single item."""

from collections.abc import Mapping
from typing import Any

import msgspec

from embedway.core.batch import Batch, Result
from embedway.core.provider_error import ProviderError
from embedway.providers import failures, usage
from embedway.providers.adapter import HttpCall, Reply, Row, in_path, merge
from embedway.providers.floats import parse, stack

_PREFIX = "models/"


class Embedding(msgspec.Struct):
    """One vector."""

    values: list[float]


class Answer(msgspec.Struct, rename="camel"):
    """The reply; it has only lately begun to count tokens, and not for all models."""

    embeddings: list[Embedding] | None = None
    usage_metadata: msgspec.Raw = msgspec.Raw()


_DECODER = msgspec.json.Decoder(Answer)


class Gemini:
    """The adapter."""

    def __init__(self, row: Row, variables: Mapping[str, str]) -> None:  # noqa: ARG002
        self._row = row

    def encode(self, batch: Batch) -> HttpCall:
        """See `embedway.providers.adapter.Adapter.encode`."""
        name = batch.model.removeprefix(_PREFIX)
        # These two stand where Google's own library puts them. The reference would have them in
        # `embedContentConfig`, but that is new, and what an older model ignores goes unnoticed.
        asked: dict[str, Any] = {}
        if purpose := self._row.fields.purpose(batch):
            asked["taskType"] = purpose
        if batch.dimensions is not None:
            asked["outputDimensionality"] = batch.dimensions
        requests = [
            {"model": _PREFIX + name, "content": {"parts": [{"text": item}]}, **asked}
            for item in batch.items
        ]
        return HttpCall(
            path=in_path(self._row.path, name),
            body=merge({"requests": requests}, batch.extra),
        )

    def decode(self, reply: Reply, batch: Batch) -> Result:
        """See `embedway.providers.adapter.Adapter.decode`."""
        answer = parse(_DECODER, reply)
        if answer.embeddings is None:
            raise self.error(reply)
        return Result(
            vectors=stack([each.values for each in answer.embeddings], items=len(batch.items)),
            tokens=usage.tokens(answer.usage_metadata, "promptTokenCount"),
        )

    def error(self, reply: Reply) -> ProviderError:
        """See `embedway.providers.adapter.Adapter.error`."""
        return failures.read(reply, self._row.failures)
