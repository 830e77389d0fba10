"""Compares the gateway's calls and replies with those of the providers' own libraries."""

import asyncio
import base64
import hashlib
import hmac
import re
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

import boto3
import cohere
import msgspec
import numpy as np
import ollama
import openai
import pytest
import voyageai
from google import genai
from google.genai import types
from google.oauth2.credentials import Credentials
from huggingface_hub import InferenceClient
from huggingface_hub.inference._providers.hf_inference import HFInferenceFeatureExtractionTask
from mistralai.client import Mistral
from recording import Answer, Recorded, recording

from embedway.core.batch import Batch, BatchResult
from embedway.providers.adapter import ProviderRow
from embedway.providers.provider import build_provider
from embedway.providers.provider_config import ProviderConfig
from embedway.providers.registry import ROWS

KEY = "key-of-the-gateway"
TEXTS = ["one text", "another", "é 汉字 🙂"]
TOKENS = 11

VERTEX = {"project": "a-project", "region": "europe-west4"}

Read = tuple[list[list[float]], int | None]
"""The vectors and the tokens that a library read from a reply."""


def vector(text: str) -> list[float]:
    """Return the recorder's vector for `text`, exact in float32 and unique in a batch."""
    return [len(text) / 4, -0.5, float(len(text.encode())), 0.25]


def packed(text: str) -> str:
    """Return the same vector in base64."""
    return base64.b64encode(np.array(vector(text), "<f4").tobytes()).decode()


def unpacked(text: str) -> list[float]:
    return np.frombuffer(base64.b64decode(text), "<f4").tolist()


def batch(items: list[str], **fields: Any) -> Batch:
    return Batch(model="", items=items, tokens=[3] * len(items), **fields)


BATCHES = {
    "one": batch(TEXTS[:1]),
    "several": batch(TEXTS),
    "query": batch(TEXTS, input_type="query"),
    "document": batch(TEXTS, input_type="document"),
    "dimensions": batch(TEXTS, dimensions=4),
    "cut": batch(TEXTS, truncate="end"),
}


class Sdk(NamedTuple):
    """A library with its call and its provider's answer."""

    row: str
    model: str
    ask: Callable[[str, Batch], Read]
    """Calls the library with a URL."""
    answer: Answer
    header: str | None = "authorization"
    """The provider's headers with the key."""
    variables: Mapping[str, str] = {}
    max_items: int = len(TEXTS)
    without: tuple[str, ...] = ()
    """The BATCHES that the library or its provider cannot express."""


# OpenAI, and others with its protocol.


def openai_list(call: Recorded) -> Any:
    body = call.body
    texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
    say = packed if body.get("encoding_format") == "base64" else vector
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": say(text)}
            for index, text in enumerate(texts)
        ],
        "model": body["model"],
        "usage": {"prompt_tokens": TOKENS, "total_tokens": TOKENS},
    }


def ask_openai(url: str, batch: Batch) -> Read:
    with openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as client:
        return read_openai(client, batch)


def ask_azure(url: str, batch: Batch) -> Read:
    with openai.AzureOpenAI(
        azure_endpoint=url, api_key=KEY, api_version="2024-10-21", max_retries=0
    ) as client:
        return read_openai(client, batch)


def read_openai(client: openai.OpenAI, batch: Batch) -> Read:
    answer = client.embeddings.create(
        model=batch.model, input=batch.items, dimensions=batch.dimensions or openai.omit
    )
    return [each.embedding for each in answer.data], answer.usage.prompt_tokens


def ask_mistral(url: str, batch: Batch) -> Read:
    with Mistral(api_key=KEY, server_url=url) as client:
        answer = client.embeddings.create(
            model=batch.model, inputs=batch.items, output_dimension=batch.dimensions
        )
    return [each.embedding for each in answer.data], answer.usage.prompt_tokens


def mistral_list(call: Recorded) -> Any:
    answer = openai_list(call)
    return answer | {"id": "x", "usage": answer["usage"] | {"completion_tokens": 0}}


def ask_voyage(url: str, batch: Batch) -> Read:
    answer = voyageai.Client(api_key=KEY, base_url=f"{url}/v1").embed(
        batch.items,
        model=batch.model,
        input_type=batch.input_type,
        output_dimension=batch.dimensions,
        truncation=batch.truncate == "end",
    )
    return answer.embeddings, answer.total_tokens


def voyage_list(call: Recorded) -> Any:
    return openai_list(call) | {"usage": {"total_tokens": TOKENS}}


# Other protocols.


def ask_cohere(url: str, batch: Batch) -> Read:
    answer = cohere.ClientV2(api_key=KEY, base_url=url).embed(
        model=batch.model,
        texts=batch.items,
        input_type=f"search_{batch.input_type or 'document'}",
        output_dimension=batch.dimensions,
        embedding_types=["base64"],
        truncate=batch.truncate.upper(),
    )
    # The library returns base64 as it is.
    vectors = [unpacked(each) for each in answer.embeddings.base64]
    return vectors, answer.meta.billed_units.input_tokens


def by_type(call: Recorded) -> Any:
    texts = call.body["texts"]
    kinds = {"float": vector, "base64": packed}
    return {
        "id": "x",
        "embeddings": {
            kind: [kinds[kind](text) for text in texts] for kind in call.body["embedding_types"]
        },
        "texts": texts,
        "meta": {"api_version": {"version": "2"}, "billed_units": {"input_tokens": TOKENS}},
        "response_type": "embeddings_by_type",
    }


def ask_gemini(url: str, batch: Batch) -> Read:
    # The library's default is v1, but Google's reference says v1beta. The library says that this
    # API has no option for truncation.
    options = types.HttpOptions(base_url=url, api_version="v1beta")
    with closing(genai.Client(api_key=KEY, http_options=options)) as client:
        answer = ask_google(client, batch)
    return [each.values for each in answer.embeddings], answer.usage_metadata.prompt_token_count


def ask_vertex(url: str, batch: Batch) -> Read:
    # The library's default is v1beta1.
    options = types.HttpOptions(base_url=url, api_version="v1")
    with closing(
        genai.Client(
            vertexai=True,
            project=VERTEX["project"],
            location=VERTEX["region"],
            credentials=Credentials(KEY),
            http_options=options,
        )
    ) as client:
        answer = ask_google(client, batch, auto_truncate=batch.truncate == "end")
    tokens = sum(each.statistics.token_count for each in answer.embeddings)
    return [each.values for each in answer.embeddings], tokens


def ask_google(client: genai.Client, batch: Batch, **options: Any) -> types.EmbedContentResponse:
    # Newer models take a list of strings for parts of one content, with one vector.
    contents = [types.Content(parts=[types.Part(text=text)]) for text in batch.items]
    purpose = batch.input_type and f"RETRIEVAL_{batch.input_type.upper()}"
    return client.models.embed_content(
        model=batch.model,
        contents=contents,
        config=types.EmbedContentConfig(
            task_type=purpose, output_dimensionality=batch.dimensions, **options
        ),
    )


def batch_embed_contents(call: Recorded) -> Any:
    texts = [each["content"]["parts"][0]["text"] for each in call.body["requests"]]
    return {
        "embeddings": [{"values": vector(text)} for text in texts],
        "usageMetadata": {"promptTokenCount": TOKENS},
    }


def embed_content(call: Recorded) -> Any:
    return {
        "embedding": {"values": vector(call.body["content"]["parts"][0]["text"])},
        "usageMetadata": {"promptTokenCount": TOKENS},
        "truncated": False,
    }


def predict(call: Recorded) -> Any:
    texts = [each["content"] for each in call.body["instances"]]
    return {
        "predictions": [
            {
                "embeddings": {
                    "values": vector(text),
                    "statistics": {"token_count": len(text), "truncated": False},
                }
            }
            for text in texts
        ],
        "metadata": {"billableCharacterCount": sum(map(len, texts))},
    }


def ask_ollama(url: str, batch: Batch) -> Read:
    answer = ollama.Client(host=url).embed(
        model=batch.model,
        input=batch.items,
        dimensions=batch.dimensions,
        truncate=batch.truncate == "end",
    )
    return [list(each) for each in answer.embeddings], answer.prompt_eval_count


def ollama_embed(call: Recorded) -> Any:
    return {
        "model": call.body["model"],
        "embeddings": [vector(text) for text in call.body["input"]],
        "total_duration": 14143917,
        "load_duration": 1019500,
        "prompt_eval_count": TOKENS,
    }


def ask_tei(url: str, batch: Batch) -> Read:
    return extracted(f"{url}/embed", batch, normalize=True)


def ask_hugging_face(url: str, batch: Batch) -> Read:
    # The library's host cannot be set, but the path that it appends can be read.
    task = HFInferenceFeatureExtractionTask()
    assert task.base_url == ROWS["huggingface"].base_url
    task.base_url = f"{url}/hf-inference"
    return extracted(task._prepare_url(KEY, batch.model), batch)


def extracted(url: str, batch: Batch, *, normalize: bool | None = None) -> Read:
    vectors = InferenceClient(url, token=KEY).feature_extraction(
        batch.items,
        prompt_name=batch.input_type,
        dimensions=batch.dimensions,
        truncate=batch.truncate == "end",
        truncation_direction="right" if batch.truncate == "end" else None,
        normalize=normalize,
    )
    return vectors.tolist(), None


def bare(call: Recorded) -> Any:
    return [vector(text) for text in call.body["inputs"]]


PURPOSES = ("query", "document")
SDKS = (
    Sdk("openai", "text-embedding-3-small", ask_openai, openai_list, without=(*PURPOSES, "cut")),
    Sdk(
        "azure",
        "my deployment",
        ask_azure,
        openai_list,
        header="api-key",
        variables={"endpoint": "https://resource.openai.azure.com"},
        without=(*PURPOSES, "cut"),
    ),
    Sdk("mistral", "codestral-embed", ask_mistral, mistral_list, without=(*PURPOSES, "cut")),
    Sdk("voyage", "voyage-4", ask_voyage, voyage_list),
    Sdk("cohere", "embed-v4.0", ask_cohere, by_type),
    Sdk(
        "gemini",
        "gemini-embedding-001",
        ask_gemini,
        batch_embed_contents,
        header="x-goog-api-key",
        without=("cut",),
    ),
    Sdk("vertex", "text-embedding-005", ask_vertex, predict, variables=VERTEX),
    Sdk("vertex", "gemini-embedding-2", ask_vertex, embed_content, variables=VERTEX, max_items=1),
    Sdk("huggingface", "BAAI/bge-m3", ask_hugging_face, bare, without=("dimensions",)),
    Sdk("tei", "", ask_tei, bare),
    Sdk("ollama", "all-minilm", ask_ollama, ollama_embed, header=None, without=PURPOSES),
)


def embedded(
    url: str, row: ProviderRow, key: str, batch: Batch, variables: Mapping[str, str]
) -> BatchResult:
    """Embed `batch` at `url` with the gateway's provider of kind `row`."""
    base = urlsplit(row.base_url.format_map({**row.defaults, **variables})).path
    declared = ProviderConfig(
        name=row.name, row=row, keys=[key], base_url=url + base, variables=variables
    )

    async def run() -> BatchResult:
        provider = build_provider(declared)
        try:
            return await provider.embed(batch)
        finally:
            await provider.aclose()

    return asyncio.run(run())


def said(body: dict[str, Any]) -> dict[str, Any]:
    """Return `body` without nulls, which mean the same as missing fields."""
    return {name: value for name, value in body.items() if value is not None}


@pytest.mark.parametrize(
    ("sdk", "batch"),
    [
        pytest.param(sdk, batch, id=f"{sdk.row}-{sdk.model.replace('/', '-')}-{name}")
        for sdk in SDKS
        for name, batch in BATCHES.items()
        if name not in sdk.without
    ],
)
def test_same(sdk: Sdk, batch: Batch) -> None:
    """Both send the same call with the same key, and read the same from the reply."""
    batch = msgspec.structs.replace(batch.slice(0, sdk.max_items), model=sdk.model)
    row = ROWS[sdk.row]
    if sdk.row == "vertex":
        # How Google's library gets a token is tested elsewhere.
        row = msgspec.structs.replace(row, credentials="bearer")
    with recording(sdk.answer) as recorder:
        vectors, tokens = sdk.ask(recorder.url, batch)
        (theirs,) = recorder.taken()
        result = embedded(recorder.url, row, KEY, batch, sdk.variables)
        (ours,) = recorder.taken()
    assert (ours.method, ours.target) == (theirs.method, theirs.target)
    assert ours.body == said(theirs.body)
    assert ours.headers["content-type"] == theirs.headers["content-type"]
    if sdk.header:
        assert KEY in theirs.headers[sdk.header]
        assert ours.headers[sdk.header] == theirs.headers[sdk.header]
    assert vectors == [vector(text) for text in batch.items]
    assert np.array_equal(result.vectors, np.array(vectors, np.float32))
    assert result.tokens == tokens


def bedrock(call: Recorded) -> Any:
    if "cohere" in call.target:
        return {name: value for name, value in by_type(call).items() if name != "meta"}
    return {
        "embedding": vector(call.body["inputText"]),
        "embeddingsByType": {"float": vector(call.body["inputText"])},
        "inputTextTokenCount": TOKENS,
    }


@pytest.mark.parametrize("token", [None, "token/of+a-session=="])
@pytest.mark.parametrize(
    ("model", "count"),
    [
        ("amazon.titan-embed-text-v2:0", 1),
        ("eu.cohere.embed-v4:0", 3),
        ("arn:aws:bedrock:eu-central-1:123456789012:inference-profile/eu.cohere.embed-v4:0", 3),
    ],
)
def test_bedrock(model: str, count: int, token: str | None) -> None:
    """A call to Bedrock equals boto3's, and its signature is valid."""
    id, secret, region = "AKIAIOSFODNN7EXAMPLE", "a/secret+key", "eu-central-1"
    key = ":".join([id, secret, *([token] if token else [])])
    asked = msgspec.structs.replace(batch(TEXTS[:count]), model=model)
    with recording(bedrock) as recorder:
        recorder.headers = {"x-amzn-bedrock-input-token-count": str(TOKENS)}
        result = embedded(recorder.url, ROWS["bedrock"], key, asked, {"region": region})
        (ours,) = recorder.taken()
        with closing(
            boto3.client(
                "bedrock-runtime",
                endpoint_url=recorder.url,
                region_name=region,
                aws_access_key_id=id,
                aws_secret_access_key=secret,
                aws_session_token=token,
            )
        ) as client:
            client.invoke_model(modelId=model, body=ours.content, contentType="application/json")
        (theirs,) = recorder.taken()
    assert np.array_equal(result.vectors, [vector(text) for text in asked.items])
    assert result.tokens == TOKENS
    assert (ours.method, ours.target) == (theirs.method, theirs.target)
    assert ours.headers.get("x-amz-security-token") == token
    for call in (theirs, ours):  # theirs proves that the test knows how it is done
        scope = f"{id}/{call.headers['x-amz-date'][:8]}/{region}/bedrock/aws4_request"
        assert f" Credential={scope}, " in call.headers["authorization"]
        assert call.headers["authorization"].endswith(f"Signature={signature(call, secret)}")


def signature(call: Recorded, secret: str) -> str:
    """Return the SigV4 signature that AWS would compute for a call."""
    credential, names, _ = re.findall(r"=([^,\s]+)", call.headers["authorization"])
    _, *scope = credential.split("/")
    path, _, query = call.target.partition("?")
    signed = [
        call.method,
        quote(path, safe="/~"),  # of the path as it came: AWS encodes it a second time
        query,
        *(f"{name}:{call.headers[name]}" for name in names.split(";")),
        "",
        names,
        hashlib.sha256(call.content).hexdigest(),
    ]
    canonical = hashlib.sha256("\n".join(signed).encode()).hexdigest()
    text = "\n".join(["AWS4-HMAC-SHA256", call.headers["x-amz-date"], "/".join(scope), canonical])
    key = f"AWS4{secret}".encode()
    for part in (*scope, text):
        key = hmac.digest(key, part.encode(), "sha256")
    return key.hex()
