"""Pinecone's inference protocol: each text in an object, everything asked for in `parameters`."""

from typing import Any

import msgspec

from embedway.core.batch import Batch, Result
from embedway.providers import usage
from embedway.providers.adapter import HttpCall, Reply, merge
from embedway.providers.adapters.openai import OpenAi
from embedway.providers.floats import malformed, parse, stack

_VERSION = "2026-07"
_DEFAULT = "passage"
"""The input type of clients that name none: most texts are stored to be found."""


class _Entry(msgspec.Struct):
    """One vector; None where the model makes sparse ones."""

    values: list[float] | None = None


class _Answer(msgspec.Struct):
    """The reply."""

    data: list[_Entry] | None = None
    usage: msgspec.Raw = msgspec.Raw()
    model: Any = None


_DECODER = msgspec.json.Decoder(_Answer)


class Pinecone(OpenAi):
    """The adapter."""

    def encode(self, batch: Batch) -> HttpCall:
        """Write the call; the version of the protocol is a header."""
        return HttpCall(
            path=self.path(batch),
            body=merge(self.fields(batch), batch.extra),
            headers={"X-Pinecone-Api-Version": _VERSION},
        )

    def fields(self, batch: Batch) -> dict[str, Any]:
        """The body."""
        body = super().fields(batch)
        inputs = [{"text": item} for item in body.pop("input")]
        model = body.pop("model")
        return {"model": model, "inputs": inputs, "parameters": {"input_type": _DEFAULT, **body}}

    def decode(self, reply: Reply, batch: Batch) -> Result:
        """Read the vectors of a 2xx reply, in the order of the items."""
        answer = parse(_DECODER, reply)
        if answer.data is None:
            raise self.error(reply)
        values = [each.values for each in answer.data if each.values is not None]
        if len(values) != len(answer.data):
            malformed("sparse vectors")
        return Result(
            vectors=stack(values, items=len(batch.items)),
            tokens=usage.tokens(answer.usage, "total_tokens"),
            model=answer.model if isinstance(answer.model, str) else None,
        )
