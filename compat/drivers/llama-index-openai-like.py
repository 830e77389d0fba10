"""LlamaIndex's class for servers like OpenAI's."""

# docs
from llama_index.embeddings.openai_like import OpenAILikeEmbedding

# end
from llama_index.core import Document, VectorStoreIndex

TEXTS_ONLY = "It sends texts only."
LACKS = {
    "base64": "The `openai` package below it asks for base64 and decodes it.",
    "token ids": TEXTS_ONLY,
    "split ids": TEXTS_ONLY,
    "split ids, hosted": TEXTS_ONLY,
}


def connect(case):
    options = dict(case.options)
    if "encoding_format" in options:
        options["additional_kwargs"] = {"encoding_format": options.pop("encoding_format")}
    # docs
    embeddings = OpenAILikeEmbedding(
        model_name=case.model, api_base=case.base_url, api_key=case.api_key, **options
    )
    # end
    return embeddings


def embed(case):
    if case.single:
        return [connect(case).get_query_embedding(case.texts[0])]
    return connect(case).get_text_embedding_batch(case.texts)


async def aembed(case):
    return await connect(case).aget_text_embedding_batch(case.texts)


def search(case):
    documents = [Document(text=text) for text in case.texts]
    index = VectorStoreIndex.from_documents(documents, embed_model=connect(case))
    return index.as_retriever(similarity_top_k=1).retrieve(case.question)[0].text
