"""Serves the same model the way one would in an afternoon, as a baseline.

It uses FastAPI, pydantic, a thread for each request, a lock around the model, which embeds one text
after another, and vectors as lists.
It has no keys, no ledger, no shared batches and no checks.
"""

import sys
import threading

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from embedway.catalog import catalog
from embedway.config.engines import load_encoder, load_tokenizer
from embedway.config.settings import load_settings

app = FastAPI()
model = threading.Lock()
settings = load_settings().settings
models = catalog.load_catalog(eu_native=False, int8=settings.precision == "int8").local_models()
tokenizer, encoder = load_tokenizer(models[0], settings), load_encoder(models[0], settings)


class Body(BaseModel):
    """The fields that this server understands."""

    input: str | list[str]
    model: str = "auto"


@app.post("/v1/embeddings")
def embeddings(body: Body) -> dict:
    """Embed the input."""
    texts = [body.input] if isinstance(body.input, str) else body.input
    with model:
        ids = tokenizer.encode(texts)
        vectors = [encoder.encode([each])[0] for each in ids]
    tokens = sum(map(len, ids))
    return {
        "object": "list",
        "model": body.model,
        "data": [
            {"object": "embedding", "index": index, "embedding": vector.tolist()}
            for index, vector in enumerate(vectors)
        ],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), log_level="warning", access_log=False)
