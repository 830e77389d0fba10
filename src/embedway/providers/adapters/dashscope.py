"""DashScope's native protocol; its OpenAI-compatible one cannot be told what vectors are for."""

from typing import Any

import msgspec

from embedway.core.batch import Batch, Result
from embedway.providers import usage
from embedway.providers.adapter import HttpCall, Reply, merge
from embedway.providers.adapters.openai import OpenAi
from embedway.providers.floats import in_order, parse, stack


class Embedding(msgspec.Struct):
    """One vector; beside it may be a sparse one."""

    embedding: list[float]
    text_index: int | None = None


class Output(msgspec.Struct):
    """The vectors."""

    embeddings: list[Embedding] | None = None


class Answer(msgspec.Struct):
    """The reply."""

    output: Output | None = None
    usage: msgspec.Raw = msgspec.Raw()


_DECODER = msgspec.json.Decoder(Answer)


class DashScope(OpenAi):
    """The adapter."""

    def encode(self, batch: Batch) -> HttpCall:
        """See `embedway.providers.adapter.Adapter.encode`."""
        asked = self.fields(batch)
        body: dict[str, Any] = {
            "model": asked.pop("model"),
            "input": {"texts": asked.pop("input")},
            # Whatever else there is to say goes here, a client's own parameters too.
            "parameters": msgspec.Raw(merge(asked, batch.extra)),
        }
        return HttpCall(path=self.path(batch), body=msgspec.json.encode(body))

    def decode(self, reply: Reply, batch: Batch) -> Result:
        """See `embedway.providers.adapter.Adapter.decode`."""
        answer = parse(_DECODER, reply)
        given = answer.output and answer.output.embeddings
        if given is None:
            raise self.error(reply)
        values = in_order([each.text_index for each in given], [each.embedding for each in given])
        return Result(
            vectors=stack(values, items=len(batch.items)),
            tokens=usage.tokens(answer.usage, "total_tokens"),
        )
