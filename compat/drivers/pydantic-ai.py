"""Pydantic AI's embedder."""

# docs
from pydantic_ai import Embedder
from pydantic_ai.embeddings.openai import OpenAIEmbeddingModel
from pydantic_ai.providers.openai import OpenAIProvider

# end

TEXTS_ONLY = "It sends texts only."
LACKS = {
    "base64": "The `openai` package below it asks for base64 and decodes it.",
    "float": "The `openai` package below it asks for base64 and decodes it.",
    "token ids": TEXTS_ONLY,
    "split ids": TEXTS_ONLY,
    "split ids, hosted": TEXTS_ONLY,
}


def connect(case):
    # docs
    provider = OpenAIProvider(base_url=case.base_url, api_key=case.api_key)
    embedder = Embedder(OpenAIEmbeddingModel(case.model, provider=provider))
    # end
    return embedder


def embed(case):
    if case.single:
        return connect(case).embed_query_sync(case.texts[0]).embeddings
    return connect(case).embed_documents_sync(case.texts, settings=case.options).embeddings


async def aembed(case):
    return (await connect(case).embed_documents(case.texts)).embeddings
