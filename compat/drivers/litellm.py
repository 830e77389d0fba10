"""LiteLLM as a library."""

import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it loads a list of prices at its start
# docs
import litellm

# end

LACKS = {}


def embed(case):
    # docs
    answer = litellm.embedding(
        model=f"openai/{case.model}",
        input=case.input,
        api_base=case.base_url,
        api_key=case.api_key,
        **case.options,
    )
    # end
    return [item["embedding"] for item in answer.data]


async def aembed(case):
    answer = await litellm.aembedding(
        model=f"openai/{case.model}",
        input=case.input,
        api_base=case.base_url,
        api_key=case.api_key,
    )
    return [item["embedding"] for item in answer.data]
