"""Mem0's memory, and its embedder for OpenAI."""

import os

os.environ["MEM0_TELEMETRY"] = "False"
# docs
from mem0 import Memory

# end
from mem0.configs.embeddings.base import BaseEmbedderConfig
from mem0.embeddings.openai import OpenAIEmbedding

TEXTS_ONLY = "It sends texts only."
LACKS = {
    "base64": "It always asks for `float`.",
    "float": "It always asks for `float`.",
    "token ids": TEXTS_ONLY,
    "split ids": TEXTS_ONLY,
    "split ids, hosted": TEXTS_ONLY,
}


def connect(case, **model):
    dimensions = case.options.get("dimensions")
    config = BaseEmbedderConfig(
        openai_base_url=case.base_url, api_key=case.api_key, embedding_dims=dimensions, **model
    )
    return OpenAIEmbedding(config)


def embed(case):
    embedder = connect(case, model=case.model)
    return [embedder.embed(case.texts[0])] if case.single else embedder.embed_batch(case.texts)


def default(case):
    return connect(case).embed_batch(case.texts)


def search(case):
    # docs
    embedder = {
        "model": case.model,
        "openai_base_url": case.base_url,
        "api_key": case.api_key,
        "embedding_dims": 384,
    }
    store = {"path": "memories", "embedding_model_dims": 384}
    config = {
        "embedder": {"provider": "openai", "config": embedder},
        "vector_store": {"provider": "qdrant", "config": store},
    }
    # end
    # Only facts that it draws from conversations need a chat model.
    config["llm"] = {"provider": "openai", "config": {"api_key": "none"}}
    # docs
    memory = Memory.from_config(config)
    # end
    for text in case.texts:
        memory.add(text, user_id="alice", infer=False)
    return memory.search(case.question, filters={"user_id": "alice"})["results"][0]["memory"]
