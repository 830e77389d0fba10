"""NVIDIA's words on OpenAI's protocol: its models must be told what the vectors are for."""

from typing import Any

from embedway.core.batch import Batch
from embedway.providers.adapters.openai import OpenAi

_DEFAULT = "passage"
"""What a client means who says nothing: most of what is embedded is to be found, not to find."""


class Nvidia(OpenAi):
    """The adapter, for the API catalog and for NIM."""

    def fields(self, batch: Batch) -> dict[str, Any]:
        """The body."""
        return {"input_type": _DEFAULT, **super().fields(batch)}
