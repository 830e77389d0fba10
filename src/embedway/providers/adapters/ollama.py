"""The native protocol of Ollama: its OpenAI route always cuts, this one can be told not to."""

import msgspec

from embedway.providers import usage
from embedway.providers.adapters.nomic import EmbeddingsReplyBody
from embedway.providers.adapters.openai import OpenAi


class _Answer(EmbeddingsReplyBody):
    prompt_eval_count: msgspec.Raw = msgspec.Raw()

    def tokens(self) -> int | None:
        """The tokens of the call."""
        return usage.count(self.prompt_eval_count)


class Ollama(OpenAi):
    """OpenAI's words, and a reply of Ollama's own."""

    answer = _Answer
