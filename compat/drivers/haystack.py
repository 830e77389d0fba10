"""Haystack's embedder of documents with its default, which skips documents that fail."""

import os

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"
# docs
from haystack.components.embedders import OpenAIDocumentEmbedder
from haystack.utils import Secret

# end
from haystack import Document
from haystack.components.embedders import OpenAITextEmbedder
from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
from haystack.document_stores.in_memory import InMemoryDocumentStore

TEXTS_ONLY = "It sends texts only."
LACKS = {
    "base64": "It always asks for `float`.",
    "float": "It always asks for `float`.",
    "token ids": TEXTS_ONLY,
    "split ids": TEXTS_ONLY,
    "split ids, hosted": TEXTS_ONLY,
}


def connect(case):
    # docs
    embedder = OpenAIDocumentEmbedder(
        model=case.model,
        api_base_url=case.base_url,
        api_key=Secret.from_token(case.api_key),
        **case.options,
    )
    # end
    return embedder


def for_queries(case):
    key = Secret.from_token(case.api_key)
    return OpenAITextEmbedder(model=case.model, api_base_url=case.base_url, api_key=key)


def documents_of(case):
    return [Document(id=str(number), content=text) for number, text in enumerate(case.texts)]


def embed(case):
    if case.single:
        return [for_queries(case).run(case.texts[0])["embedding"]]
    return [each.embedding for each in connect(case).run(documents_of(case))["documents"]]


async def aembed(case):
    result = await connect(case).run_async(documents_of(case))
    return [each.embedding for each in result["documents"]]


def default(case):
    key = Secret.from_token(case.api_key)
    embedder = OpenAIDocumentEmbedder(api_base_url=case.base_url, api_key=key)
    return [each.embedding for each in embedder.run(documents_of(case))["documents"]]


def search(case):
    store = InMemoryDocumentStore(embedding_similarity_function="cosine")
    store.write_documents(connect(case).run(documents_of(case))["documents"])
    question = for_queries(case).run(case.question)["embedding"]
    return InMemoryEmbeddingRetriever(store, top_k=1).run(question)["documents"][0].content
