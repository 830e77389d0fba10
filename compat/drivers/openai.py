"""OpenAI's own client."""

# docs
from openai import OpenAI

# end
from openai import AsyncOpenAI

LACKS = {}


def embed(case):
    # docs
    client = OpenAI(base_url=case.base_url, api_key=case.api_key)
    # end
    answer = client.embeddings.create(model=case.model, input=case.input, **case.options)
    return [item.embedding for item in answer.data]


async def aembed(case):
    client = AsyncOpenAI(base_url=case.base_url, api_key=case.api_key)
    answer = await client.embeddings.create(model=case.model, input=case.input, **case.options)
    return [item.embedding for item in answer.data]
