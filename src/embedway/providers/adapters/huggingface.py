"""The feature extraction of Hugging Face's Inference API, and model names as part of a path."""

from typing import Any

import msgspec

from embedway.core.batch import Batch, BatchResult
from embedway.http.call import HttpReply
from embedway.providers.adapter import model_path
from embedway.providers.adapters.tei import Tei
from embedway.providers.floats import parse_body, stack_vectors

# An object is an error, whatever its status. Vectors of each token are neither.
_DECODER = msgspec.json.Decoder(list[list[float]] | dict[str, Any])


class HuggingFace(Tei):
    """The words of Text Embeddings Inference, which it runs."""

    def path(self, batch: Batch) -> str:
        """The path, with the model in it."""
        return model_path(self._row.path, batch.model)

    def fields(self, batch: Batch) -> dict[str, Any]:
        """The body."""
        body = super().fields(batch)
        del body["normalize"]
        return body

    def decode(self, reply: HttpReply, batch: Batch) -> BatchResult:
        """Read the vectors of a 2xx reply."""
        answer = parse_body(_DECODER, reply)
        if isinstance(answer, dict):
            raise self.error(reply)
        return BatchResult(vectors=stack_vectors(answer, items=len(batch.items)))
