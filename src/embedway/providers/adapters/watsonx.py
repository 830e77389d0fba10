"""Speaks the protocol of IBM's watsonx.ai."""

from typing import Any

import msgspec

from embedway.core.batch import Batch
from embedway.providers import usage
from embedway.providers.adapters.openai import OpenAi, ReplyBody


class _Entry(msgspec.Struct):
    embedding: list[float]


class _Body(ReplyBody):
    results: list[_Entry] | None = None
    input_token_count: msgspec.Raw = msgspec.Raw()

    def read_vectors(self, batch: Batch) -> list[list[float]] | None:
        """Return the vectors in the order of the items."""
        return None if self.results is None else [each.embedding for each in self.results]

    def read_tokens(self) -> int | None:
        """Return the tokens of the call."""
        return usage.read_count(self.input_token_count)


class Watsonx(OpenAi):
    """Speaks the protocol of watsonx.ai."""

    reply_body = _Body

    def build_body(self, batch: Batch) -> dict[str, Any]:
        """Build the body."""
        body: dict[str, Any] = {"model_id": batch.model, "inputs": batch.items}
        # It takes either, but not both.
        for owner in ("space_id", "project_id"):
            if value := self._variables.get(owner):
                return {**body, owner: value}
        return body
