"""Speaks the protocol of Nomic's Atlas."""

from typing import Any

from embedway.core.batch import Batch
from embedway.providers.adapters.openai import CountedReplyBody, OpenAi

# Nomic never refuses a text that is too long. Unless the client wants it cut, ask for the mean of
# its parts explicitly, because the default may change.
_DEFAULTS = {"long_text_mode": "mean"}


class EmbeddingsReplyBody(CountedReplyBody):
    """A reply with a list of plain vectors."""

    embeddings: list[list[float]] | None = None

    def read_vectors(self, batch: Batch) -> list[list[float]] | None:
        """Return the vectors in the order of the items."""
        return self.embeddings


class Nomic(OpenAi):
    """Adds a long text mode to OpenAI's fields."""

    reply_body = EmbeddingsReplyBody

    def build_body(self, batch: Batch) -> dict[str, Any]:
        """Build the body."""
        body = {**_DEFAULTS, **super().build_body(batch)}
        body["texts"] = body.pop("input")
        return body
