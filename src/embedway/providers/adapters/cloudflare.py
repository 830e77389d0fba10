"""The protocol of Cloudflare's Workers AI: each answer is wrapped, and says whether it is one."""

from typing import Any

import msgspec

from embedway.core.batch import Batch
from embedway.providers.adapter import model_path
from embedway.providers.adapters.openai import OpenAi, ReplyBody
from embedway.providers.floats import malformed_error


class _Vectors(msgspec.Struct):
    data: list[list[float]] | None = None
    pooling: Any = None
    """How a vector was made of those of its tokens, as some models say."""


class _Answer(ReplyBody):
    result: _Vectors | None = None
    success: bool = True

    def values(self, batch: Batch) -> list[list[float]] | None:
        """The vectors, pooled as they were asked for."""
        if not self.success or self.result is None:
            return None
        pooling, asked = self.result.pooling, batch.extra.get("pooling")
        if pooling is not None and asked is not None and pooling != asked:
            malformed_error("vectors that are pooled otherwise than it was told")
        return self.result.data


class Cloudflare(OpenAi):
    """Cloudflare's words."""

    answer = _Answer

    def path(self, batch: Batch) -> str:
        """The path, with the model in it."""
        return model_path(self._row.path, batch.model)

    def fields(self, batch: Batch) -> dict[str, Any]:
        """The body."""
        body = super().fields(batch)
        del body["model"]
        # qwen3-embedding has a field for queries, which puts its instruction before them.
        body[self._row.fields.purpose(batch) or "text"] = body.pop("input")
        return body
