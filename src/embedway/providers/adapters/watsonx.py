"""The protocol of IBM's watsonx.ai."""

from typing import Any

import msgspec

from embedway.core.batch import Batch, Result
from embedway.providers import usage
from embedway.providers.adapter import Reply
from embedway.providers.adapters.openai import OpenAi
from embedway.providers.floats import parse, stack


class Entry(msgspec.Struct):
    """One vector of a reply."""

    embedding: list[float]


class Answer(msgspec.Struct):
    """The reply."""

    results: list[Entry] | None = None
    input_token_count: msgspec.Raw = msgspec.Raw()


_DECODER = msgspec.json.Decoder(Answer)


class Watsonx(OpenAi):
    """The adapter."""

    def fields(self, batch: Batch) -> dict[str, Any]:
        """See `embedway.providers.adapters.openai.OpenAi.fields`."""
        body: dict[str, Any] = {"model_id": batch.model, "inputs": batch.items}
        # It takes one of them, not both.
        for owner in ("space_id", "project_id"):
            if value := self._variables.get(owner):
                return {**body, owner: value}
        return body

    def decode(self, reply: Reply, batch: Batch) -> Result:
        """See `embedway.providers.adapter.Adapter.decode`."""
        answer = parse(_DECODER, reply)
        if answer.results is None:
            raise self.error(reply)
        return Result(
            vectors=stack([entry.embedding for entry in answer.results], items=len(batch.items)),
            tokens=usage.count(answer.input_token_count),
        )
