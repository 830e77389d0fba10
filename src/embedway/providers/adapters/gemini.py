"""Speaks the Gemini API's `batchEmbedContents`, even for a single item."""

from typing import Any

import msgspec

from embedway.core.batch import Batch
from embedway.http.call import HttpCall
from embedway.providers import usage
from embedway.providers.adapter import merge_extra, model_path
from embedway.providers.adapters.openai import OpenAi, ReplyBody

_PREFIX = "models/"


class GeminiReplyBody(ReplyBody, rename="camel"):
    """A reply that counts tokens. Only newer models do."""

    usage_metadata: msgspec.Raw = msgspec.Raw()

    def read_tokens(self) -> int | None:
        """Return the tokens of the call."""
        return usage.read_tokens(self.usage_metadata, "promptTokenCount")


class _Embedding(msgspec.Struct):
    values: list[float]


class _Body(GeminiReplyBody, rename="camel"):
    embeddings: list[_Embedding] | None = None

    def read_vectors(self, batch: Batch) -> list[list[float]] | None:
        """Return the vectors in the order of the items."""
        return None if self.embeddings is None else [each.values for each in self.embeddings]


class Gemini(OpenAi):
    """Speaks the protocol of the Gemini API."""

    reply_body = _Body

    def encode(self, batch: Batch) -> HttpCall:
        """Build the call that embeds `batch`."""
        name = batch.model.removeprefix(_PREFIX)
        # Google's own library puts these two here. The reference puts them into
        # `embedContentConfig`, which is new: older models might silently ignore it.
        options: dict[str, Any] = {}
        if purpose := self._row.fields.purpose(batch):
            options["taskType"] = purpose
        if batch.dimensions is not None:
            options["outputDimensionality"] = batch.dimensions
        requests = [
            {"model": _PREFIX + name, "content": {"parts": [{"text": item}]}, **options}
            for item in batch.items
        ]
        return HttpCall(
            path=model_path(self._row.path, name),
            body=merge_extra({"requests": requests}, batch.extra),
        )
