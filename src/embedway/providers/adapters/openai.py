"""The protocol of OpenAI's embeddings endpoint and of all who speak it, each with its own words.

What differs between them is data in the row: which fields they take and by what name.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from embedway.core.batch import Batch, BatchResult
from embedway.core.provider_error import ProviderError
from embedway.core.vectors import Vectors
from embedway.http.call import HttpCall, HttpReply
from embedway.providers import failures, usage
from embedway.providers.adapter import ProviderRow, merge_extra
from embedway.providers.floats import (
    Value,
    malformed_error,
    order_by_index,
    parse_body,
    stack_vectors,
)


class ReplyBody(msgspec.Struct):
    """A 2xx reply. Subclasses have the fields of their protocol."""

    def values(self, batch: Batch) -> Sequence[Value] | None:
        """The vectors, one for each item and in their order; None if the reply is an error."""
        raise NotImplementedError

    def tokens(self) -> int | None:
        """The tokens that the provider counted, as in `providers.usage`."""
        return None


class CountedReplyBody(ReplyBody):
    """A reply that counts tokens as OpenAI's does."""

    usage: msgspec.Raw = msgspec.Raw()

    def tokens(self) -> int | None:
        """The tokens in `usage`. Voyage has only the second field, some providers have none."""
        return usage.tokens(self.usage, "prompt_tokens", "total_tokens")


class _Entry(msgspec.Struct):
    embedding: Value
    index: int | None = None


class _Answer(CountedReplyBody):
    data: list[_Entry] | None = None
    model: Any = None
    """Usually a string; anything else is no reason to refuse the vectors."""

    def values(self, batch: Batch) -> Sequence[Value] | None:
        """The vectors by their index."""
        if self.data is None:
            return None
        if len(self.data) != len(batch.items):
            malformed_error(f"{len(self.data)} vectors for {len(batch.items)} items")
        return order_by_index(
            [each.index for each in self.data], [each.embedding for each in self.data]
        )


class OpenAi:
    """OpenAI's protocol; subclasses change a word or two."""

    answer: type[ReplyBody] = _Answer
    """The shape of a 2xx reply."""

    def __init__(self, row: ProviderRow, variables: Mapping[str, str]) -> None:
        self._row = row
        self._variables = variables
        self._decoder = msgspec.json.Decoder(self.answer)

    def encode(self, batch: Batch) -> HttpCall:
        """Write the call that embeds `batch`."""
        return HttpCall(path=self.path(batch), body=merge_extra(self.fields(batch), batch.extra))

    def path(self, batch: Batch) -> str:  # Azure's has the model in it
        """The path of the call, relative to the base URL."""
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

    def decode(self, reply: HttpReply, batch: Batch) -> BatchResult:
        """Read the vectors of a 2xx reply."""
        return self.read(self._decoder, reply, batch)

    def read(
        self, decoder: "msgspec.json.Decoder[Any]", reply: HttpReply, batch: Batch
    ) -> BatchResult:
        """Read the vectors of a 2xx reply in the shape that `decoder` knows, an `Answer`."""
        answer: ReplyBody = parse_body(decoder, reply)
        values = answer.values(batch)
        if values is None:
            raise self.error(reply)  # some report their errors with 200
        model = getattr(answer, "model", None)
        return BatchResult(
            vectors=self.vectors(values, items=len(batch.items)),
            tokens=answer.tokens(),
            model=model if isinstance(model, str) else None,
        )

    def vectors(self, values: Sequence[Value], *, items: int) -> Vectors:
        """The vectors, shape (items, width)."""
        return stack_vectors(values, items=items)

    def error(self, reply: HttpReply) -> ProviderError:
        """Read the failure that any other reply reports."""
        return failures.read_error(reply, self._row.failures)
