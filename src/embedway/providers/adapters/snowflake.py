"""The protocol of Snowflake's Cortex: OpenAI's reply, but with each vector in a list of its own."""

from collections.abc import Sequence
from typing import Any

import msgspec

from embedway.core.batch import Batch
from embedway.providers.adapters.openai import CountedReplyBody, OpenAi
from embedway.providers.floats import Value, malformed_error, order_by_index


class _Entry(msgspec.Struct):
    embedding: list[list[float]]
    index: int | None = None


class _Answer(CountedReplyBody):
    data: list[_Entry] | None = None
    model: Any = None

    def values(self, batch: Batch) -> Sequence[Value] | None:
        """The vectors by their index."""
        if self.data is None:
            return None
        if any(len(each.embedding) != 1 for each in self.data):
            malformed_error("several vectors for one item")
        return order_by_index(
            [each.index for each in self.data], [each.embedding[0] for each in self.data]
        )


class Snowflake(OpenAi):
    """Snowflake's words."""

    answer = _Answer

    def fields(self, batch: Batch) -> dict[str, Any]:
        """The body."""
        body = super().fields(batch)
        body["text"] = body.pop("input")
        return body
