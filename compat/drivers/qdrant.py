"""Qdrant's client in local mode, with vectors of OpenAI's client."""

# docs
from openai import OpenAI
from qdrant_client import QdrantClient
from qdrant_client.models import Distance, PointStruct, VectorParams

# end

LACKS = {}


def search(case):
    # docs
    client = OpenAI(base_url=case.base_url, api_key=case.api_key)
    store = QdrantClient(":memory:")
    store.create_collection(
        "texts", vectors_config=VectorParams(size=384, distance=Distance.COSINE)
    )
    # end
    answer = client.embeddings.create(model=case.model, input=case.texts)
    points = [
        PointStruct(id=item.index, vector=item.embedding, payload={"text": case.texts[item.index]})
        for item in answer.data
    ]
    store.upsert("texts", points)
    question = client.embeddings.create(model=case.model, input=case.question).data[0].embedding
    return store.query_points("texts", query=question, limit=1).points[0].payload["text"]
