"""The native protocol of Ollama: its OpenAI route always cuts, this one can be told not to."""

import msgspec

from embedway.core.batch import Batch, Result
from embedway.providers import usage
from embedway.providers.adapter import Reply
from embedway.providers.adapters.openai import OpenAi
from embedway.providers.floats import parse, stack


class Answer(msgspec.Struct):
    """The reply."""

    embeddings: list[list[float]] | None = None
    prompt_eval_count: msgspec.Raw = msgspec.Raw()


_DECODER = msgspec.json.Decoder(Answer)


class Ollama(OpenAi):
    """The adapter. What it is sent is called as OpenAI calls it."""

    def decode(self, reply: Reply, batch: Batch) -> Result:
        """See `embedway.providers.adapter.Adapter.decode`."""
        answer = parse(_DECODER, reply)
        if answer.embeddings is None:
            raise self.error(reply)
        return Result(
            vectors=stack(answer.embeddings, items=len(batch.items)),
            tokens=usage.count(answer.prompt_eval_count),
        )
