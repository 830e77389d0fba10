"""The protocol of Nomic's Atlas."""

from typing import Any

from embedway.core.batch import Batch
from embedway.providers.adapters.openai import CountedReplyBody, OpenAi

# A text that is too long is never refused. Unless the client wants it cut, all of it counts, as
# the mean of its parts; said rather than left to the default, which may change.
_DEFAULTS = {"task_type": "search_document", "long_text_mode": "mean"}


class EmbeddingsReplyBody(CountedReplyBody):
    """A reply with a list of plain vectors."""

    embeddings: list[list[float]] | None = None

    def values(self, batch: Batch) -> list[list[float]] | None:
        """The vectors, in the order of the items."""
        return self.embeddings


class Nomic(OpenAi):
    """Nomic's words."""

    answer = EmbeddingsReplyBody

    def fields(self, batch: Batch) -> dict[str, Any]:
        """The body."""
        body = {**_DEFAULTS, **super().fields(batch)}
        body["texts"] = body.pop("input")
        return body
