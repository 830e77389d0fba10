"""Speaks the protocol of OpenAI's embeddings endpoint, which many providers share.

What differs between providers is data in the row: the fields they take, and their names.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from embedway.core.batch import Batch, BatchResult
from embedway.core.provider_error import ProviderError
from embedway.core.vectors import Vectors
from embedway.http.call import HttpCall, HttpReply
from embedway.providers import failures, usage
from embedway.providers.adapter import ProviderRow, merge_extra, model_path
from embedway.providers.floats import (
    Value,
    malformed_error,
    order_by_index,
    parse_body,
    stack_vectors,
)


class ReplyBody(msgspec.Struct):
    """The body of a 2xx reply. Subclasses have the fields of their protocol."""

    def read_vectors(self, batch: Batch) -> Sequence[Value] | None:
        """Return one vector per item, in their order; None if the body is an error."""
        raise NotImplementedError

    def read_tokens(self) -> int | None:
        """Return the provider's token count, as `usage.read_count` does."""
        return None


class CountedReplyBody(ReplyBody):
    """The body of a reply that counts tokens like OpenAI's."""

    usage: msgspec.Raw = msgspec.Raw()

    def read_tokens(self) -> int | None:
        """Return the tokens in `usage`. Voyage has only the second field, and some have neither."""
        return usage.read_tokens(self.usage, "prompt_tokens", "total_tokens")


class _Entry(msgspec.Struct):
    embedding: Value
    index: int | None = None


class _Body(CountedReplyBody):
    data: list[_Entry] | None = None
    model: Any = None
    """Usually a string. Anything else is ignored."""

    def read_vectors(self, batch: Batch) -> Sequence[Value] | None:
        """Return the vectors in the order of their indices."""
        if self.data is None:
            return None
        if len(self.data) != len(batch.items):
            malformed_error(f"{len(self.data)} vectors for {len(batch.items)} items")
        return order_by_index(
            [each.index for each in self.data], [each.embedding for each in self.data]
        )


class OpenAi:
    """Speaks OpenAI's protocol. Subclasses change what their provider does differently."""

    reply_body: type[ReplyBody] = _Body
    """The shape of the body of a 2xx reply."""

    def __init__(self, row: ProviderRow, variables: Mapping[str, str]) -> None:
        self._row = row
        self._variables = variables
        self._decoder = msgspec.json.Decoder(self.reply_body)

    def encode(self, batch: Batch) -> HttpCall:
        """Build the call that embeds `batch`."""
        return HttpCall(
            path=self.build_path(batch), body=merge_extra(self.build_body(batch), batch.extra)
        )

    def build_path(self, batch: Batch) -> str:
        """Return the path of the call, with the model if it has a place for it."""
        path = self._row.path
        return model_path(path, batch.model) if "{model}" in path else path

    def build_body(self, batch: Batch) -> dict[str, Any]:
        """Build the body."""
        fields = self._row.fields
        body: dict[str, Any] = {"model": batch.model, "input": batch.items}
        if fields.base64:
            body[fields.base64[0]] = fields.base64[1]
        if fields.dimensions and batch.dimensions is not None:
            body[fields.dimensions] = batch.dimensions
        if fields.input_type and (word := fields.purpose(batch) or fields.default_input_type):
            body[fields.input_type] = word
        if fields.truncate and batch.truncate in fields.truncations:
            body[fields.truncate] = fields.truncations[batch.truncate]
        if fields.user and batch.user is not None:
            body[fields.user] = batch.user
        return body

    def decode(self, reply: HttpReply, batch: Batch) -> BatchResult:
        """Read the vectors of a 2xx reply."""
        return self.decode_with(self._decoder, reply, batch)

    def decode_with(
        self, decoder: "msgspec.json.Decoder[Any]", reply: HttpReply, batch: Batch
    ) -> BatchResult:
        """Read the vectors of a 2xx reply with the decoder of a `ReplyBody`."""
        body: ReplyBody = parse_body(decoder, reply)
        values = body.read_vectors(batch)
        if values is None:
            raise self.decode_error(reply)  # some providers report errors with 200
        model = getattr(body, "model", None)
        return BatchResult(
            vectors=self.build_vectors(values, reply, items=len(batch.items)),
            tokens=body.read_tokens(),
            model=model if isinstance(model, str) else None,
        )

    def build_vectors(self, values: Sequence[Value], reply: HttpReply, *, items: int) -> Vectors:
        """Return the vectors as an array of shape (items, width)."""
        return stack_vectors(values, reply, items=items)

    def decode_error(self, reply: HttpReply) -> ProviderError:
        """Read the failure that any other reply reports."""
        return failures.read_error(reply, self._row.failures)
