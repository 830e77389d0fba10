"""Perplexity's words on OpenAI's protocol: its vectors are never floats, but int8 in base64."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from embedway.core.batch import Batch
from embedway.core.vectors import Vectors
from embedway.providers.adapters.openai import OpenAi
from embedway.providers.floats import Value, malformed_error, stack_vectors

_SCALE = np.float32(127)
"""Makes of the numbers -127..127 what they were rounded from."""


class Perplexity(OpenAi):
    """The adapter."""

    def fields(self, batch: Batch) -> dict[str, Any]:
        """The body."""
        return {**super().fields(batch), "encoding_format": "base64_int8"}

    def vectors(self, values: Sequence[Value], *, items: int) -> Vectors:
        """The vectors, scaled to what they were rounded from."""
        if any(isinstance(value, list) for value in values):
            malformed_error("numbers where int8 in base64 was asked for")  # of a scale nobody knows
        return stack_vectors(values, items=items, dtype=np.int8) / _SCALE
