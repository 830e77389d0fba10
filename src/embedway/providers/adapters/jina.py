"""Jina's words on OpenAI's protocol: what vectors are for is called differently by each family."""

from collections.abc import Mapping
from typing import Any

from embedway.core.batch import Batch
from embedway.core.request import InputType
from embedway.providers.adapters.openai import OpenAi

_RETRIEVAL: Mapping[InputType, str] = {
    "query": "retrieval.query",
    "document": "retrieval.passage",
}
# By the start of the model's name. What is not here has the tasks of the row, which are v5's.
_TASKS: Mapping[str, Mapping[InputType, str]] = {
    "jina-clip": {},
    "jina-embeddings-v2": {},
    "jina-embeddings-v3": {
        **_RETRIEVAL,
        "classification": "classification",
        "clustering": "separation",
    },
    "jina-embeddings-v4": _RETRIEVAL,
    "jina-code-embeddings": {"query": "nl2code.query", "document": "nl2code.passage"},
}


class Jina(OpenAi):
    """The adapter."""

    def fields(self, batch: Batch) -> dict[str, Any]:
        """See `embedway.providers.adapters.openai.OpenAi.fields`."""
        body = super().fields(batch)
        tasks = next((each for name, each in _TASKS.items() if batch.model.startswith(name)), None)
        if tasks is not None and batch.input_type is not None:
            body.pop("task", None)
            if task := tasks.get(batch.input_type):
                body["task"] = task
        return body
