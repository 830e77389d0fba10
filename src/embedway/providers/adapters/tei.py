"""The native protocol of Text Embeddings Inference, the one that can be told not to cut."""

from typing import Any

import msgspec

from embedway.core.batch import Batch, BatchResult
from embedway.http.call import HttpReply
from embedway.providers.adapters.openai import OpenAi
from embedway.providers.floats import parse_body, stack_vectors

_DECODER = msgspec.json.Decoder(list[list[float]])
_SIDES = {"end": "right", "start": "left"}
_MAX_DIGITS = 15


class Tei(OpenAi):
    """The adapter. Such a server has one model, whose name it is never told."""

    def fields(self, batch: Batch) -> dict[str, Any]:
        """The body."""
        body = super().fields(batch)
        del body["model"]
        # Always a list of items: a bare list of ids would be one item.
        body["inputs"] = body.pop("input")
        body["normalize"] = True
        if side := _SIDES.get(batch.truncate):
            body["truncation_direction"] = side
        return body

    def decode(self, reply: HttpReply, batch: Batch) -> BatchResult:
        """Read the vectors of a 2xx reply."""
        vectors = stack_vectors(parse_body(_DECODER, reply), items=len(batch.items))
        counted = reply.headers.get("x-compute-tokens", "")
        known = counted.isdecimal() and len(counted) <= _MAX_DIGITS
        return BatchResult(vectors=vectors, tokens=int(counted) if known else None)
