"""DSPy's embedder, which calls LiteLLM."""

import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it loads a list of prices at its start
# docs
import dspy

# end

TEXTS_ONLY = "It sends texts only."
LACKS = {
    "base64": "It reads numbers only.",
    "token ids": TEXTS_ONLY,
    "split ids": TEXTS_ONLY,
    "split ids, hosted": TEXTS_ONLY,
}


def connect(case):
    # docs
    embedder = dspy.Embedder(
        f"openai/{case.model}",
        api_base=case.base_url,
        api_key=case.api_key,
        caching=False,
        **case.options,
    )
    # end
    return embedder


def embed(case):
    vectors = connect(case)(case.input)
    return [vectors] if case.single else vectors


async def aembed(case):
    return await connect(case).acall(case.texts)


def search(case):
    return dspy.Embeddings(case.texts, connect(case), k=1)(case.question).passages[0]
