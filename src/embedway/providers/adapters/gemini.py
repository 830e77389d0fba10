"""The Gemini API's `batchEmbedContents`, also for a single item."""

from typing import Any

import msgspec

from embedway.core.batch import Batch
from embedway.http.call import HttpCall
from embedway.providers import usage
from embedway.providers.adapter import merge_extra, model_path
from embedway.providers.adapters.openai import OpenAi, ReplyBody

_PREFIX = "models/"


class GeminiReplyBody(ReplyBody, rename="camel"):
    """A reply that counts tokens, as it does for newer models only."""

    usage_metadata: msgspec.Raw = msgspec.Raw()

    def tokens(self) -> int | None:
        """The tokens of the call."""
        return usage.tokens(self.usage_metadata, "promptTokenCount")


class _Embedding(msgspec.Struct):
    values: list[float]


class _Answer(GeminiReplyBody, rename="camel"):
    embeddings: list[_Embedding] | None = None

    def values(self, batch: Batch) -> list[list[float]] | None:
        """The vectors, in the order of the items."""
        return None if self.embeddings is None else [each.values for each in self.embeddings]


class Gemini(OpenAi):
    """Google's words."""

    answer = _Answer

    def encode(self, batch: Batch) -> HttpCall:
        """Write the call that embeds `batch`."""
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
            path=model_path(self._row.path, name),
            body=merge_extra({"requests": requests}, batch.extra),
        )
