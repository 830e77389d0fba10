"""The protocol of Snowflake's Cortex: OpenAI's reply, but with each vector in a list of its own."""

from typing import Any

import msgspec

from embedway.core.batch import Batch, Result
from embedway.providers import usage
from embedway.providers.adapter import Reply
from embedway.providers.adapters.openai import OpenAi
from embedway.providers.floats import in_order, malformed, parse, stack


class _Entry(msgspec.Struct):
    """One vector."""

    embedding: list[list[float]]
    index: int | None = None


class _Answer(msgspec.Struct):
    """The reply."""

    data: list[_Entry] | None = None
    usage: msgspec.Raw = msgspec.Raw()
    model: Any = None


_DECODER = msgspec.json.Decoder(_Answer)


class Snowflake(OpenAi):
    """The adapter."""

    def fields(self, batch: Batch) -> dict[str, Any]:
        """The body."""
        body = super().fields(batch)
        body["text"] = body.pop("input")
        return body

    def decode(self, reply: Reply, batch: Batch) -> Result:
        """Read the vectors of a 2xx reply, in the order of the items."""
        answer = parse(_DECODER, reply)
        if answer.data is None:
            raise self.error(reply)
        if any(len(each.embedding) != 1 for each in answer.data):
            malformed("several vectors for one item")
        values = in_order(
            [each.index for each in answer.data], [each.embedding[0] for each in answer.data]
        )
        return Result(
            vectors=stack(values, items=len(batch.items)),
            tokens=usage.tokens(answer.usage, "total_tokens"),
            model=answer.model if isinstance(answer.model, str) else None,
        )
