"""OpenAI's Python client against a real gateway."""

import asyncio
import socket
from collections.abc import Iterator

import httpx
import numpy as np
import openai
import pytest
from conftest import Gateway, get

MODEL = "all-minilm-l6-v2"


@pytest.fixture(scope="module")
def client(gateway: Gateway) -> Iterator[openai.OpenAI]:
    """The client, created as in its documentation."""
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key) as client:
        yield client


def embed(client: openai.OpenAI, input: object, **options) -> np.ndarray:
    answer = client.embeddings.create(model="auto", input=input, **options)
    assert [item.index for item in answer.data] == list(range(len(answer.data)))
    return np.array([item.embedding for item in answer.data], np.float32)


def assert_same(one: np.ndarray, other: np.ndarray) -> None:
    """Assert that the vectors differ only by rounding, as between different batches."""
    assert (np.sum(one * other, axis=1) >= 0.99999).all()


def test_answer(client: openai.OpenAI) -> None:
    """Answers have the fields it reads, and the request id."""
    answer = client.embeddings.create(model=MODEL, input="a", user="u1")
    assert (answer.object, answer.model) == ("list", MODEL)
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (3, 3)
    assert answer._request_id


def test_extra_body(client: openai.OpenAI) -> None:
    """Its `extra_body` reaches the gateway's own fields."""
    assert embed(client, "cat " * 300, extra_body={"truncate": "end"}).shape == (1, 384)


def test_models(client: openai.OpenAI) -> None:
    """It lists the models and retrieves one by any of its names."""
    assert [model.id for model in client.models.list()] == ["auto", MODEL]
    maker = "sentence-transformers"
    for name, owner in ((MODEL, maker), (f"embedway:{MODEL}", maker), ("auto", "embedway")):
        model = client.models.retrieve(name)
        assert (model.id, model.object, model.owned_by) == (name, "model", owner)


@pytest.mark.parametrize(
    ("fields", "kind", "code", "param"),
    [
        ({"input": ""}, openai.BadRequestError, None, "input"),
        ({"input": "cat " * 300}, openai.BadRequestError, "context_length_exceeded", "input"),
        ({"input": "a", "dimensions": 8}, openai.BadRequestError, None, "dimensions"),
        ({"input": "a", "model": "nope"}, openai.NotFoundError, "model_not_found", "model"),
    ],
    ids=lambda value: None if isinstance(value, dict) else str(value),
)
def test_errors(
    client: openai.OpenAI,
    fields: dict,
    kind: type[openai.APIStatusError],
    code: str | None,
    param: str,
) -> None:
    """An error raises its exception for the status, with our code, field and message."""
    with pytest.raises(kind) as caught:
        client.embeddings.create(**{"model": "auto", **fields})
    assert (caught.value.code, caught.value.param) == (code, param)
    assert caught.value.body["message"] in str(caught.value)


def test_bad_key(client: openai.OpenAI) -> None:
    """An invalid key raises its AuthenticationError, also for models."""
    stranger = client.with_options(api_key="sk-gateway-nope")
    for call in (lambda: embed(stranger, "a"), stranger.models.list):
        with pytest.raises(openai.AuthenticationError) as caught:
            call()
        assert caught.value.code == "invalid_api_key"


def test_overload(new_gateway) -> None:
    """While the gateway is full the client gets 503, and its own retries succeed later."""
    gateway = new_gateway(max_in_flight=1).start()
    body = b'{"input":"a"}'
    head = f"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {gateway.key}\r\n"
    with socket.create_connection(("127.0.0.1", gateway.port)) as holder:
        holder.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode())
        while "embedway_requests_in_flight 1.0" not in get(f"{gateway.url}/metrics").text:
            pass

        statuses: list[int] = []

        def release(answer: httpx.Response) -> None:
            statuses.append(answer.status_code)
            if len(statuses) == 2:
                holder.sendall(body)

        with (
            gateway.client(event_hooks={"response": [release]}) as transport,
            openai.OpenAI(
                base_url=f"{gateway.url}/v1", api_key=gateway.key, http_client=transport
            ) as client,
        ):
            with pytest.raises(openai.InternalServerError) as caught:
                embed(client.with_options(max_retries=0), "a")
            assert caught.value.code == "server_is_overloaded"
            assert 0 < int(caught.value.response.headers["retry-after-ms"]) <= 2000
            assert int(caught.value.response.headers["retry-after"]) in {1, 2}
            assert embed(client.with_options(max_retries=5), "a").shape == (1, 384)
    assert statuses[:2] == [503, 503]
    assert statuses[-1] == 200


def test_concurrent(client: openai.OpenAI, gateway: Gateway) -> None:
    """Each of 50 parallel requests gets the vector of its own text."""
    texts = [f"text {index} " + "word " * (index * 7 % 90) for index in range(50)]

    async def all_at_once() -> np.ndarray:
        async with openai.AsyncOpenAI(
            base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0
        ) as many:
            answers = await asyncio.gather(
                *(many.embeddings.create(model="auto", input=text) for text in texts)
            )
        return np.array([answer.data[0].embedding for answer in answers], np.float32)

    together = asyncio.run(all_at_once())
    alone = np.concatenate([embed(client, text) for text in texts])
    assert_same(together, alone)
    # Even texts this similar have different vectors.
    assert (np.argmax(together @ alone.T, axis=1) == np.arange(len(texts))).all()
