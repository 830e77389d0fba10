"""The protocol of Nomic's Atlas."""

from typing import Any

import msgspec

from embedway.core.batch import Batch, Result
from embedway.providers import usage
from embedway.providers.adapter import Reply
from embedway.providers.adapters.openai import OpenAi
from embedway.providers.floats import parse, stack

# A text that is too long is never refused. Unless the client wants it cut, all of it counts, as
# the mean of its parts; said rather than left to the default, which may change.
_DEFAULTS = {"task_type": "search_document", "long_text_mode": "mean"}


class Answer(msgspec.Struct):
    """The reply."""

    embeddings: list[list[float]] | None = None
    usage: msgspec.Raw = msgspec.Raw()


_DECODER = msgspec.json.Decoder(Answer)


class Nomic(OpenAi):
    """The adapter."""

    def fields(self, batch: Batch) -> dict[str, Any]:
        """See `embedway.providers.adapters.openai.OpenAi.fields`."""
        body = {**_DEFAULTS, **super().fields(batch)}
        body["texts"] = body.pop("input")
        return body

    def decode(self, reply: Reply, batch: Batch) -> Result:
        """See `embedway.providers.adapter.Adapter.decode`."""
        answer = parse(_DECODER, reply)
        if answer.embeddings is None:
            raise self.error(reply)
        return Result(
            vectors=stack(answer.embeddings, items=len(batch.items)),
            tokens=usage.tokens(answer.usage, "prompt_tokens", "total_tokens"),
        )
