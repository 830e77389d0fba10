"""The protocol of IBM's watsonx.ai."""

from typing import Any

import msgspec

from embedway.core.batch import Batch
from embedway.providers import usage
from embedway.providers.adapters.openai import OpenAi, ReplyBody


class _Entry(msgspec.Struct):
    embedding: list[float]


class _Answer(ReplyBody):
    results: list[_Entry] | None = None
    input_token_count: msgspec.Raw = msgspec.Raw()

    def values(self, batch: Batch) -> list[list[float]] | None:
        """The vectors, in the order of the items."""
        return None if self.results is None else [each.embedding for each in self.results]

    def tokens(self) -> int | None:
        """The tokens of the call."""
        return usage.count(self.input_token_count)


class Watsonx(OpenAi):
    """IBM's words."""

    answer = _Answer

    def fields(self, batch: Batch) -> dict[str, Any]:
        """The body."""
        body: dict[str, Any] = {"model_id": batch.model, "inputs": batch.items}
        # It takes one of them, not both.
        for owner in ("space_id", "project_id"):
            if value := self._variables.get(owner):
                return {**body, owner: value}
        return body
