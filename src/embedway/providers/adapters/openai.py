"""The protocol of OpenAI's embeddings endpoint and of all who speak it, each with its own words.

What differs between them is data in the row: which fields they take and by what name.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from embedway.core.batch import Batch, Result
from embedway.core.provider_error import ProviderError
from embedway.core.vectors import Vectors
from embedway.providers import failures, usage
from embedway.providers.adapter import HttpCall, Reply, Row, merge
from embedway.providers.floats import Value, in_order, malformed, parse, stack


class Entry(msgspec.Struct):
    """One vector of a reply."""

    embedding: Value
    index: int | None = None


class Answer(msgspec.Struct):
    """The reply."""

    data: list[Entry] | None = None
    usage: msgspec.Raw = msgspec.Raw()
    model: Any = None
    """Most say a string; what else one may say is no reason to refuse its vectors."""


class OpenAi:
    """The adapter; subclasses change a word or two."""

    def __init__(self, row: Row, variables: Mapping[str, str]) -> None:
        self._row = row
        self._variables = variables
        self._decoder = msgspec.json.Decoder(Answer)

    def encode(self, batch: Batch) -> HttpCall:
        """See `embedway.providers.adapter.Adapter.encode`."""
        return HttpCall(path=self.path(batch), body=merge(self.fields(batch), batch.extra))

    def path(self, batch: Batch) -> str:  # noqa: ARG002  # Azure's has the model in it
        """Where this batch goes, relative to the base URL."""
        return self._row.path

    def fields(self, batch: Batch) -> dict[str, Any]:
        """The body."""
        fields = self._row.fields
        body: dict[str, Any] = {"model": batch.model, "input": batch.items}
        if fields.base64:
            body[fields.base64[0]] = fields.base64[1]
        if fields.dimensions and batch.dimensions is not None:
            body[fields.dimensions] = batch.dimensions
        if fields.input_type and (purpose := fields.purpose(batch)):
            body[fields.input_type] = purpose
        if fields.truncate and batch.truncate in fields.truncations:
            body[fields.truncate] = fields.truncations[batch.truncate]
        if fields.user and batch.user is not None:
            body[fields.user] = batch.user
        return body

    def decode(self, reply: Reply, batch: Batch) -> Result:
        """See `embedway.providers.adapter.Adapter.decode`."""
        answer = parse(self._decoder, reply)
        if answer.data is None:
            raise self.error(reply)  # some report their errors with 200
        if len(answer.data) != len(batch.items):
            malformed(f"{len(answer.data)} vectors for {len(batch.items)} items")
        values = in_order(
            [entry.index for entry in answer.data], [entry.embedding for entry in answer.data]
        )
        return Result(
            vectors=self.vectors(values, items=len(batch.items)),
            # The first is missing at Voyage, both are at some.
            tokens=usage.tokens(answer.usage, "prompt_tokens", "total_tokens"),
            model=answer.model if isinstance(answer.model, str) else None,
        )

    def vectors(self, values: Sequence[Value], *, items: int) -> Vectors:
        """The vectors, shape (items, width)."""
        return stack(values, items=items)

    def error(self, reply: Reply) -> ProviderError:
        """See `embedway.providers.adapter.Adapter.error`."""
        return failures.read(reply, self._row.failures)
