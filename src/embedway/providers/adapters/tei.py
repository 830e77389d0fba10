"""Speaks Text Embeddings Inference's native protocol, the one that can refuse long texts."""

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
    """Leaves the model out, because a server has only one."""

    def build_body(self, batch: Batch) -> dict[str, Any]:
        """Build the body."""
        body = super().build_body(batch)
        del body["model"]
        # Always send a list of items, because a single list of ids would be one item.
        body["inputs"] = body.pop("input")
        body["normalize"] = True
        if side := _SIDES.get(batch.truncate):
            body["truncation_direction"] = side
        return body

    def decode(self, reply: HttpReply, batch: Batch) -> BatchResult:
        """Read the vectors of a 2xx reply."""
        vectors = stack_vectors(parse_body(_DECODER, reply), reply, items=len(batch.items))
        tokens = reply.headers.get("x-compute-tokens", "")
        is_count = tokens.isdecimal() and len(tokens) <= _MAX_DIGITS
        return BatchResult(vectors=vectors, tokens=int(tokens) if is_count else None)
