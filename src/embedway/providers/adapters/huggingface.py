"""The feature extraction of Hugging Face's Inference API, and model names as part of a path."""

from typing import Any

import msgspec

from embedway.core.batch import Batch, Result
from embedway.http.call import Reply
from embedway.providers.adapter import in_path
from embedway.providers.adapters.tei import Tei
from embedway.providers.floats import parse, stack

# An object is an error, whatever its status. Vectors of each token are neither.
_DECODER = msgspec.json.Decoder(list[list[float]] | dict[str, Any])


class HuggingFace(Tei):
    """The words of Text Embeddings Inference, which it runs."""

    def path(self, batch: Batch) -> str:
        """The path, with the model in it."""
        return in_path(self._row.path, batch.model)

    def fields(self, batch: Batch) -> dict[str, Any]:
        """The body."""
        body = super().fields(batch)
        del body["normalize"]
        return body

    def decode(self, reply: Reply, batch: Batch) -> Result:
        """Read the vectors of a 2xx reply."""
        answer = parse(_DECODER, reply)
        if isinstance(answer, dict):
            raise self.error(reply)
        return Result(vectors=stack(answer, items=len(batch.items)))
