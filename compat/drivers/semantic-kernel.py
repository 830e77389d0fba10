"""Semantic Kernel's service for OpenAI."""

import asyncio

# docs
from openai import AsyncOpenAI
from semantic_kernel.connectors.ai.open_ai import OpenAITextEmbedding

# end
from semantic_kernel.connectors.ai.open_ai import OpenAIEmbeddingPromptExecutionSettings

TEXTS_ONLY = "It sends texts only."
LACKS = {
    "search": "Its stores were not tried.",
    "token ids": TEXTS_ONLY,
    "split ids": TEXTS_ONLY,
    "split ids, hosted": TEXTS_ONLY,
}


def embed(case):
    return asyncio.run(aembed(case))


async def aembed(case):
    # docs
    client = AsyncOpenAI(base_url=case.base_url, api_key=case.api_key)
    service = OpenAITextEmbedding(ai_model_id=case.model, async_client=client)
    # end
    settings = OpenAIEmbeddingPromptExecutionSettings(**case.options)
    return await service.generate_embeddings(case.texts, settings)
