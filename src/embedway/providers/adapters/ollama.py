"""Speaks Ollama's native protocol, because its OpenAI route always cuts long texts."""

import msgspec

from embedway.providers import usage
from embedway.providers.adapters.nomic import EmbeddingsReplyBody
from embedway.providers.adapters.openai import OpenAi


class _Body(EmbeddingsReplyBody):
    prompt_eval_count: msgspec.Raw = msgspec.Raw()

    def read_tokens(self) -> int | None:
        """Return the tokens of the call."""
        return usage.read_count(self.prompt_eval_count)


class Ollama(OpenAi):
    """Sends OpenAI's fields and reads Ollama's reply."""

    reply_body = _Body
