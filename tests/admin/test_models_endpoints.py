"""The models endpoints: the configured catalog, and the health of its deployments."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from conftest import Gateway, Minilm

from embedway.testing import Upstream, other_pooling

MINILM = "all-minilm-l6-v2"
PATHS = ["/v1/embeddings/models", "/api/v1/llm/embeddings/models"]
TOML = """
[aliases]
pinned = "cheap:shared"
two = ["near:shared", "cheap:shared"]

[models.shared]
weights = {{ other = 0.0 }}

[models.narrow]
only = ["near"]

[providers.near]
kind = "together"
base_url = "{right}/together/v1"
api_key = "t"
eu_native = true
hq_country = "FR"
[[providers.near.models]]
id = "shared"
name = "org/shared"
dimensions = 64
native_dimensions = 128
trained_dimensions = [16, 32]
max_item_tokens = 512
pooling = "cls"
normalised = true
licence = "MIT"
prompts = {{ query = "query: " }}
price_per_mtok_usd = "2"
price_date = 2026-02-03
quantisation = "bf16"
region = "fr-par"
max_items = 7
[[providers.near.models]]
id = "narrow"
dimensions = 8
price_per_mtok_usd = "3"

[providers.cheap]
kind = "deepinfra"
base_url = "{right}/deepinfra/v1"
api_key = "d"
[[providers.cheap.models]]
id = "shared"
dimensions = 64
native_dimensions = 128
trained_dimensions = [16, 32]
pooling = "cls"
normalised = true
price_per_mtok_usd = "1"
[[providers.cheap.models]]
id = "narrow"
dimensions = 8
price_per_mtok_usd = "1"

[providers.other]
kind = "siliconflow"
base_url = "{wrong}/siliconflow/v1"
api_key = "s"
[[providers.other.models]]
id = "shared"
dimensions = 64
pooling = "cls"
normalised = true
price_per_mtok_usd = "5"
"""


def configured(gateway: Gateway, right: Upstream, wrong: Upstream) -> Gateway:
    (gateway.folder / "embedway.toml").write_text(TOML.format(right=right.url, wrong=wrong.url))
    return gateway.start()


@pytest.fixture(scope="module")
def wrong() -> Iterator[Upstream]:
    """A server whose vectors are from another space than it claims."""
    with Upstream() as running:
        running.vectors = other_pooling(running.vectors)
        yield running


@pytest.fixture(scope="module")
def several(
    upstream: Upstream, wrong: Upstream, minilm: Minilm, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """A gateway with one model from three providers, one of which returns wrong vectors."""
    running = configured(
        Gateway(tmp_path_factory.mktemp("several"), canaries=True), upstream, wrong
    )
    yield running
    running.kill()


def get(gateway: Gateway, path: str, **query: str) -> httpx.Response:
    with gateway.client() as client:
        return client.get(path, params=query)


def cards(gateway: Gateway, key: str | None = None) -> dict[str, dict[str, Any]]:
    """The listed deployments by id."""
    headers = {"authorization": f"Bearer {key or gateway.key}"}
    answer = httpx.get(f"{gateway.url}{PATHS[0]}", headers=headers, timeout=30).raise_for_status()
    return {card["id"]: card for card in answer.json()["data"]}


def names(gateway: Gateway, key: str, **query: str) -> list[str]:
    """The names that /v1/models lists."""
    headers = {"authorization": f"Bearer {key}"}
    answer = httpx.get(f"{gateway.url}/v1/models", headers=headers, params=query, timeout=30)
    return [card["id"] for card in answer.raise_for_status().json()["data"]]


# OpenAI's shape


def test_openai_models(gateway: Gateway) -> None:
    """The list and a single model have OpenAI's shape and cortecs' additional fields."""
    listed = get(gateway, "/v1/models").json()
    assert listed.keys() == {"object", "data"}
    assert listed["object"] == "list"
    auto, card = listed["data"]
    assert card == get(gateway, f"/v1/models/{MINILM}").json()
    assert auto == get(gateway, "/v1/models/auto").json()
    assert auto == card | {
        "id": "auto",
        "owned_by": "embedway",
        "description": f"Stands for embedway:{MINILM}.",
    }
    assert card.pop("description")
    assert isinstance(card.pop("created"), int)
    assert set(card.pop("tags")) >= {"embedding"}
    assert card == {
        "id": MINILM,
        "object": "model",
        "owned_by": "sentence-transformers",
        "pricing": {"input_token": 0, "output_token": 0, "currency": "USD"},
        "providers": ["embedway"],
        "context_size": 256,
    }


def test_cheapest_provider(several: Gateway) -> None:
    """A model has the price of its cheapest possible provider, and names all possible providers.

    A model pinned to providers has the price and providers of these only.
    """
    listed = {card["id"]: card for card in get(several, "/v1/models").json()["data"]}
    assert list(listed)[:3] == ["auto", "pinned", "two"]
    prices = {
        id: (each["providers"], each["pricing"]["input_token"]) for id, each in listed.items()
    }
    assert prices["shared"] == (["cheap", "near", "other"], 1)
    assert prices["pinned"] == (["cheap"], 1)
    assert prices["two"] == (["cheap", "near"], 1)
    assert prices["narrow"] == (["near"], 3)
    assert listed["two"]["description"] == "Stands for near:shared, then cheap:shared."
    one = get(several, "/v1/models/near:shared").json()
    assert (one["id"], one["providers"], one["pricing"]["input_token"]) == (
        *("near:shared", ["near"], 2),
    )
    unknown = get(several, "/v1/models/near:nobody/declared this").json()
    assert (unknown["id"], unknown["providers"], unknown["pricing"]["input_token"]) == (
        *("near:nobody/declared this", ["near"], None),
    )


@pytest.mark.parametrize(
    ("query", "listed"),
    [
        ({"tag": "embedding"}, ["auto", MINILM]),
        ({"tag": "chat"}, []),
        ({"currency": "USD"}, ["auto", MINILM]),
        ({"currency": "usd", "tag": "embedding"}, ["auto", MINILM]),
    ],
)
def test_models_query(gateway: Gateway, query: dict[str, str], listed: list[str]) -> None:
    """`tag` filters; `currency` accepts only the currency of prices."""
    assert names(gateway, gateway.key, **query) == listed


@pytest.mark.parametrize(
    ("path", "query", "status", "names_it"),
    [
        ("/v1/models", {"currency": "EUR"}, 400, "currency"),
        ("/api/v1/models", {"type": "embeddings"}, 400, "type"),
        (PATHS[0], {"model": "all-minilm"}, 404, "model"),
        ("/v1/models/all-minilm", {}, 404, "model"),
    ],
)
def test_bad_queries(
    gateway: Gateway, path: str, query: dict[str, str], status: int, names_it: str
) -> None:
    """An invalid query is refused with its field and value."""
    answer = get(gateway, path, **query)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert error["param"] == names_it
    value = next(iter(query.values()), "all-minilm")
    assert repr(value) in error["message"] or json.dumps(value) in error["message"]


# MKA1's shape


@pytest.mark.parametrize("path", PATHS)
def test_mka1_models(gateway: Gateway, path: str) -> None:
    """Deployments have MKA1's shape and what a choice needs, with the same space as responses."""
    listed = get(gateway, path).json()
    (card,) = listed.pop("data")
    assert listed == {"object": "list"}
    space = gateway.embed(input="a").headers["x-embedway-space"]
    assert card.pop("description")
    assert card == {
        "id": f"embedway:{MINILM}",
        "provider": "embedway",
        "model": MINILM,
        "upstream_model": MINILM,
        "declared": True,
        "aliases": ["auto"],
        "licence": "Apache-2.0",
        "limits": {"max_batch_size": 2048, "max_input_tokens": 256, "max_input_length": 100_000},
        "call_limits": card["call_limits"],
        "dimensions": 384,
        "native_dimensions": 384,
        "allowed_dimensions": [],
        "tokenizer": "own",
        "pooling": "mean",
        "normalised": True,
        "prompts": {},
        "space": space,
        "home_space": space,
        "shared_space": None,
        "proof": "reference",
        "proof_reason": "",
        "price_per_mtok_usd": 0,
        "price_date": card["price_date"],
        "region": "",
        "hq_country": "",
        "eu_native": False,
        "quantisation": "fp32",
        "zero_data_retention": True,
        "released": None,
        "deprecated": None,
        "retires": None,
        "successor": "",
        "dates_source": "",
        "health": "healthy",
    }
    assert card["call_limits"]["max_items"] > 0


def test_deployments_as_configured(several: Gateway) -> None:
    """A deployment's card shows what the operator configured."""
    card = cards(several)["near:shared"]
    said = {
        "upstream_model": "org/shared",
        "aliases": ["two"],
        "licence": "MIT",
        "dimensions": 64,
        "native_dimensions": 128,
        "allowed_dimensions": [16, 32],
        "pooling": "cls",
        "normalised": True,
        "prompts": {"query": "query: "},
        "price_per_mtok_usd": 2,
        "price_date": "2026-02-03",
        "region": "fr-par",
        "hq_country": "FR",
        "eu_native": True,
        "quantisation": "bf16",
    }
    assert {name: card[name] for name in said} == said
    assert card["limits"]["max_batch_size"] == 2048
    assert card["limits"]["max_input_tokens"] == 512
    assert card["call_limits"]["max_items"] == 7


def test_one_models_deployments(several: Gateway) -> None:
    """`model` accepts any name: the model's id, or a name that only one provider uses."""
    everybody = ["near:shared", "cheap:shared", "other:shared"]
    for name in ("shared", "pinned", "other:shared"):
        listed = get(several, PATHS[0], model=name).json()["data"]
        assert [card["id"] for card in listed] == everybody
    [card] = get(several, PATHS[0], model="near:what-is-this").json()["data"]
    assert (card["id"], card["declared"]) == ("near:what-is-this", False)
    assert card["price_per_mtok_usd"] is None
    assert "near:what-is-this" not in cards(several)


def test_spaces_in_force(new_gateway: Callable[..., Gateway], upstream: Upstream, wrong: Upstream):
    """A card shows the proven space: none at first, then the reference's space."""
    upstream.reset()
    gateway = configured(new_gateway(canaries=True), upstream, wrong)
    before = cards(gateway)
    home = "shared@near/cls-l2/prompt-none/64"
    assert {card["home_space"] for id, card in before.items() if "shared" in id} == {home}
    assert before["cheap:shared"]["proof"] == "unproven"
    assert before["cheap:shared"]["proof_reason"]
    assert before["cheap:shared"]["space"] == "shared@cheap/cls-l2/prompt-none/64"
    spaces = {}
    for id in ("near:shared", "cheap:shared", "other:shared"):
        answer = gateway.embed(model=id, input="a")
        assert answer.status_code == 200, answer.text
        spaces[id] = answer.headers["x-embedway-space"]
    after = cards(gateway)
    assert {id: after[id]["space"] for id in spaces} == spaces
    assert {id: after[id]["proof"] for id in spaces} == {
        "near:shared": "reference",
        "cheap:shared": "proven",
        "other:shared": "differs",
    }
    assert spaces["cheap:shared"] == home
    assert spaces["other:shared"] != home
    assert "cosine" in after["other:shared"]["proof_reason"]
    assert get(gateway, "/v1/models/shared").json()["providers"] == ["cheap", "near"]
    assert get(gateway, "/v1/models/other:shared").json()["providers"] == ["other"]


def test_health(new_gateway: Callable[..., Gateway], upstream: Upstream, wrong: Upstream) -> None:
    """A rate-limited deployment is `limited`, one that keeps failing is `ejected`."""
    upstream.reset()
    gateway = configured(new_gateway(), upstream, wrong)
    assert gateway.embed(model="near:shared", input="a").status_code == 200
    upstream.always("429 of seconds")
    assert gateway.embed(model="near:shared", input="a").status_code == 429
    upstream.always("500")
    while cards(gateway)["cheap:shared"]["health"] == "healthy":
        assert gateway.embed(model="cheap:shared", input="a").status_code in {502, 503}
    upstream.reset()
    health = {id: card["health"] for id, card in cards(gateway).items()}
    assert health["near:shared"] == "limited"
    assert health["cheap:shared"] == "ejected"
    assert health["other:shared"] == health[f"embedway:{MINILM}"] == "healthy"


# Restricted keys


@pytest.mark.parametrize(
    ("arguments", "models", "deployments"),
    [
        (["--model=auto"], ["auto"], [f"embedway:{MINILM}"]),
        (["--model=pinned"], ["pinned"], ["cheap:shared"]),
        (
            ["--model=shared"],
            ["pinned", "two", "shared"],
            ["near:shared", "cheap:shared", "other:shared"],
        ),
        (["--model=near:shared"], ["two", "shared"], ["near:shared"]),
        (["--provider=other"], ["shared"], ["other:shared"]),
        (["--model=shared", "--provider=near"], ["two", "shared"], ["near:shared"]),
    ],
)
def test_restricted_keys(
    several: Gateway, arguments: list[str], models: list[str], deployments: list[str]
) -> None:
    """A key sees only the names and deployments that it may use."""
    key = several.new_key("restricted", *arguments)["key"]
    assert names(several, key) == models
    assert list(cards(several, key)) == deployments
    headers = {"authorization": f"Bearer {key}"}
    with several.client(headers=headers) as client:
        for name in models:
            assert client.get(f"/v1/models/{name}").json()["id"] == name
            assert client.post(
                "/v1/embeddings?dry_run=true", json={"model": name, "input": "a"}
            ).is_success
        refused = client.get("/v1/models/narrow")
    assert refused.status_code == 403
    assert refused.json()["error"]["code"] == "model_not_found"


def test_restricted_prices(several: Gateway) -> None:
    """A restricted key sees prices and providers only of deployments that it may use."""
    key = several.new_key("dear", "--provider", "near")["key"]
    with several.client(headers={"authorization": f"Bearer {key}"}) as client:
        card = client.get("/v1/models/shared").json()
        assert (card["providers"], card["pricing"]["input_token"]) == (["near"], 2)
        [deployment] = client.get(PATHS[0], params={"model": "shared"}).json()["data"]
    assert (deployment["id"], deployment["aliases"]) == ("near:shared", ["two"])


# AIHubMix' shape


def test_aihubmix_models(gateway: Gateway) -> None:
    """The public list has AIHubMix' shape and may be cached for 300 s."""
    answer = httpx.get(f"{gateway.url}/api/v1/models?type=embedding")
    assert answer.headers["cache-control"] == "public, max-age=300"
    listed = answer.json()
    (card,) = listed.pop("data")
    assert listed == {"success": True, "message": ""}
    assert card.pop("desc")
    assert card == {
        "model_id": MINILM,
        "types": "embedding",
        "features": "",
        "input_modalities": "text",
        "max_output": 0,
        "context_length": 256,
        "pricing": {"input": 0, "output": 0},
    }
    assert httpx.get(f"{gateway.url}/api/v1/models?type=llm").json()["data"] == []
