"""Speaks the feature extraction protocol of Hugging Face's Inference API."""

from typing import Any

import msgspec

from embedway.core.batch import Batch, BatchResult
from embedway.http.call import HttpReply
from embedway.providers.adapters.tei import Tei
from embedway.providers.floats import parse_body, stack_vectors

# An object is an error, whatever its status. Vectors per token are refused.
_DECODER = msgspec.json.Decoder(list[list[float]] | dict[str, Any])


class HuggingFace(Tei):
    """Speaks like Text Embeddings Inference, which it runs, with the model in the path."""

    def build_body(self, batch: Batch) -> dict[str, Any]:
        """Build the body."""
        body = super().build_body(batch)
        del body["normalize"]
        return body

    def decode(self, reply: HttpReply, batch: Batch) -> BatchResult:
        """Read the vectors of a 2xx reply."""
        body = parse_body(_DECODER, reply)
        if isinstance(body, dict):
            raise self.decode_error(reply)
        return BatchResult(vectors=stack_vectors(body, reply, items=len(batch.items)))
