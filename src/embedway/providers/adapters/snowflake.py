"""Speaks the protocol of Snowflake's Cortex: OpenAI's reply with each vector in a list."""

from collections.abc import Sequence
from typing import Any

import msgspec

from embedway.core.batch import Batch
from embedway.providers.adapters.openai import CountedReplyBody, OpenAi
from embedway.providers.floats import Value, malformed_error, order_by_index


class _Entry(msgspec.Struct):
    embedding: list[list[float]]
    index: int | None = None


class _Body(CountedReplyBody):
    data: list[_Entry] | None = None
    model: Any = None

    def read_vectors(self, batch: Batch) -> Sequence[Value] | None:
        """Return the vectors in the order of their indices."""
        if self.data is None:
            return None
        if any(len(each.embedding) != 1 for each in self.data):
            malformed_error("several vectors for one item")
        return order_by_index(
            [each.index for each in self.data], [each.embedding[0] for each in self.data]
        )


class Snowflake(OpenAi):
    """Sends the texts as `text`."""

    reply_body = _Body

    def build_body(self, batch: Batch) -> dict[str, Any]:
        """Build the body."""
        body = super().build_body(batch)
        body["text"] = body.pop("input")
        return body
