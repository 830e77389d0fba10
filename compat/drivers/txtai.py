"""txtai's index, with vectors by LiteLLM."""

import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it loads a list of prices at its start
# docs
from txtai import Embeddings

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
    server = {"api_base": case.base_url, "api_key": case.api_key, **case.options}
    embeddings = Embeddings(path=f"openai/{case.model}", method="litellm", vectors=server)
    # end
    return embeddings


def embed(case):
    return connect(case).batchtransform(case.texts)


def search(case):
    embeddings = connect(case)
    embeddings.index(case.texts)
    return case.texts[embeddings.search(case.question, 1)[0][0]]
