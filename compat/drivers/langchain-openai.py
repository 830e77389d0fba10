"""LangChain's class with its default, which sends token ids."""

# docs
from langchain_openai import OpenAIEmbeddings

# end
from langchain_core.vectorstores import InMemoryVectorStore

LACKS = {
    "base64": "The `openai` package below it asks for base64 and decodes it.",
}


def connect(case):
    options = dict(case.options)
    if case.split_tokens:
        options["embedding_ctx_length"] = case.split_tokens
    if "encoding_format" in options:
        options["model_kwargs"] = {"encoding_format": options.pop("encoding_format")}
    # docs
    embeddings = OpenAIEmbeddings(
        model=case.model, base_url=case.base_url, api_key=case.api_key, **options
    )
    # end
    return embeddings


def embed(case):
    if case.single:
        return [connect(case).embed_query(case.texts[0])]
    return connect(case).embed_documents(case.texts)


async def aembed(case):
    return await connect(case).aembed_documents(case.texts)


def default(case):
    embeddings = OpenAIEmbeddings(base_url=case.base_url, api_key=case.api_key)
    return embeddings.embed_documents(case.texts)


def search(case):
    store = InMemoryVectorStore(connect(case))
    store.add_texts(case.texts)
    return store.similarity_search(case.question, k=1)[0].page_content
