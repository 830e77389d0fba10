"""Chroma's embedding function for OpenAI, used by a collection."""

import uuid
import warnings

# docs
from chromadb.utils.embedding_functions import OpenAIEmbeddingFunction

# end
import chromadb
from chromadb.config import Settings

TEXTS_ONLY = "It sends texts only."
LACKS = {
    "base64": "The `openai` package below it asks for base64 and decodes it.",
    "float": "The `openai` package below it asks for base64 and decodes it.",
    "token ids": TEXTS_ONLY,
    "split ids": TEXTS_ONLY,
    "split ids, hosted": TEXTS_ONLY,
}
warnings.simplefilter("ignore", DeprecationWarning)
client = chromadb.EphemeralClient(Settings(anonymized_telemetry=False))


def connect(case):
    # docs
    function = OpenAIEmbeddingFunction(
        model_name=case.model, api_base=case.base_url, api_key=case.api_key, **case.options
    )
    # end
    return client.create_collection(uuid.uuid4().hex, embedding_function=function)


def add(collection, texts):
    ids = [str(number) for number in range(len(texts))]
    collection.add(ids, documents=texts)
    found = collection.get(ids, include=["embeddings"])
    stored = dict(zip(found["ids"], found["embeddings"], strict=True))
    return [stored[id] for id in ids]


def embed(case):
    return add(connect(case), case.texts)


def default(case):
    function = OpenAIEmbeddingFunction(api_base=case.base_url, api_key=case.api_key)
    return add(client.create_collection(uuid.uuid4().hex, embedding_function=function), case.texts)


def search(case):
    collection = connect(case)
    add(collection, case.texts)
    return collection.query(query_texts=[case.question], n_results=1)["documents"][0][0]
