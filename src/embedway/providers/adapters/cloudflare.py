"""Speaks the protocol of Cloudflare's Workers AI, whose replies are wrapped in an envelope."""

from typing import Any

import msgspec

from embedway.core.batch import Batch
from embedway.providers.adapters.openai import OpenAi, ReplyBody
from embedway.providers.floats import malformed_error


class _Vectors(msgspec.Struct):
    data: list[list[float]] | None = None
    pooling: Any = None
    """The pooling that was used, from some models."""


class _Body(ReplyBody):
    result: _Vectors | None = None
    success: bool = True

    def read_vectors(self, batch: Batch) -> list[list[float]] | None:
        """Return the vectors; refuse them if their pooling is not the requested one."""
        if not self.success or self.result is None:
            return None
        pooling, requested = self.result.pooling, batch.extra.get("pooling")
        if pooling is not None and requested is not None and pooling != requested:
            malformed_error("vectors with another pooling than requested")
        return self.result.data


class Cloudflare(OpenAi):
    """Leaves the model out of the body, and sends the texts as `text` or `queries`."""

    reply_body = _Body

    def build_body(self, batch: Batch) -> dict[str, Any]:
        """Build the body."""
        body = super().build_body(batch)
        del body["model"]
        # qwen3-embedding puts its instruction before texts in its field for queries.
        body[self._row.fields.purpose(batch) or "text"] = body.pop("input")
        return body
