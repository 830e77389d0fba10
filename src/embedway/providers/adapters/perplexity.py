"""Speaks Perplexity's protocol: OpenAI's with vectors as int8 in base64."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from embedway.core.batch import Batch
from embedway.core.vectors import Vectors
from embedway.http.call import HttpReply
from embedway.providers.adapters.openai import OpenAi
from embedway.providers.floats import Value, malformed_error, stack_vectors

_SCALE = np.float32(127)
"""The divisor that turns -127..127 into what was rounded."""


class Perplexity(OpenAi):
    """Asks for int8 and scales it."""

    def build_body(self, batch: Batch) -> dict[str, Any]:
        """Build the body."""
        return {**super().build_body(batch), "encoding_format": "base64_int8"}

    def build_vectors(self, values: Sequence[Value], reply: HttpReply, *, items: int) -> Vectors:
        """Return the vectors scaled to -1..1."""
        if any(isinstance(value, list) for value in values):
            malformed_error("numbers instead of int8 in base64")  # their scale is unknown
        return stack_vectors(values, reply, items=items, dtype=np.int8) / _SCALE
