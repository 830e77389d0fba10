"""The protocol of Cloudflare's Workers AI: each answer is wrapped, and says whether it is one."""

from typing import Any

import msgspec

from embedway.core.batch import Batch, Result
from embedway.providers.adapter import Reply, in_path
from embedway.providers.adapters.openai import OpenAi
from embedway.providers.floats import malformed, parse, stack


class Vectors(msgspec.Struct):
    """What a model answered."""

    data: list[list[float]] | None = None
    pooling: Any = None
    """How one vector was made of its tokens', as some models say."""


class Answer(msgspec.Struct):
    """The reply."""

    result: Vectors | None = None
    success: bool = True


_DECODER = msgspec.json.Decoder(Answer)


class Cloudflare(OpenAi):
    """The adapter."""

    def path(self, batch: Batch) -> str:
        """See `embedway.providers.adapters.openai.OpenAi.path`."""
        return in_path(self._row.path, batch.model)

    def fields(self, batch: Batch) -> dict[str, Any]:
        """See `embedway.providers.adapters.openai.OpenAi.fields`."""
        body = super().fields(batch)
        del body["model"]
        # qwen3-embedding has a field for queries, which puts its instruction before them.
        body[self._row.fields.purpose(batch) or "text"] = body.pop("input")
        return body

    def decode(self, reply: Reply, batch: Batch) -> Result:
        """See `embedway.providers.adapter.Adapter.decode`."""
        answer = parse(_DECODER, reply)
        if not answer.success or answer.result is None or answer.result.data is None:
            raise self.error(reply)
        pooling, asked = answer.result.pooling, batch.extra.get("pooling")
        if pooling is not None and asked is not None and pooling != asked:
            malformed("vectors that are pooled otherwise than it was told")
        return Result(vectors=stack(answer.result.data, items=len(batch.items)))
