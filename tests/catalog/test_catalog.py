"""The packaged catalog: its files are right as far as can be told here, and names find models."""

import re
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from importlib import resources
from pathlib import Path

import msgspec
import pytest

from embedway.catalog import catalog, check
from embedway.catalog.catalog import LOCAL, Catalog, ModelFamily
from embedway.catalog.deployment import Deployment
from embedway.catalog.model import DeploymentSpec, Model
from embedway.config import providers
from embedway.core.errors import UnknownModel
from embedway.providers.provider_config import ProviderConfig
from embedway.providers.registry import ROWS
from embedway.routing import resolve

MODELS = catalog.read_packaged()
SERVED = [(model, each) for model in MODELS for each in model.deployments]
FILES = sorted(Path(str(resources.files("embedway.catalog") / "models")).iterdir())
# Of these nobody says any more how wide they are.
UNKNOWN_WIDTHS = {"voyage-lite-01"}
UNKNOWN_LICENCES = {
    "jina-embeddings-v5-omni-small",
    "jina-embeddings-v5-omni-nano",
    "nv-embedqa-e5-v5",
    "nemotron-3-embed-1b",
    "llama-text-embed-v2",
}
# Id, provider: its name for the model, width, US dollars per million tokens.
WELL_KNOWN = {
    ("text-embedding-3-small", "openai"): ("", 1536, "0.02"),
    ("text-embedding-3-large", "openai"): ("", 3072, "0.13"),
    ("text-embedding-3-large", "azure"): ("", 3072, "0.143"),
    ("text-embedding-ada-002", "openai"): ("", 1536, "0.10"),
    ("embed-v4.0", "cohere"): ("", 1536, "0.12"),
    ("embed-v4.0", "bedrock"): ("cohere.embed-v4:0", 1536, "0.12"),
    ("embed-multilingual-light-v3.0", "cohere"): ("", 384, "0.10"),
    ("voyage-4-lite", "voyage"): ("", 1024, "0.02"),
    ("voyage-3-large", "voyage"): ("", 1024, "0.18"),
    ("mistral-embed", "mistral"): ("", 1024, "0.10"),
    ("gemini-embedding-001", "gemini"): ("", 3072, "0.15"),
    ("titan-embed-text-v2", "bedrock"): ("amazon.titan-embed-text-v2:0", 1024, "0.02"),
    ("jina-embeddings-v3", "jina"): ("", 1024, None),
    ("qwen3-embedding-8b", "nebius"): ("Qwen/Qwen3-Embedding-8B", 4096, "0.01"),
    ("bge-m3", "cloudflare"): ("@cf/baai/bge-m3", 1024, "0.012"),
    ("pplx-embed-v1-0.6b", "perplexity"): ("", 1024, "0.004"),
}


def declared(name: str, kind: str | None = None, **more: object) -> ProviderConfig:
    """A provider as one enables it."""
    return msgspec.structs.replace(ProviderConfig(name=name, row=ROWS[kind or name]), **more)


def offered(*enabled: ProviderConfig) -> Catalog:
    """The catalog of a gateway that may ask these."""
    return catalog.load_catalog(eu_native=False, offers=providers.provider_offers(enabled))


def served(name: str, among: Catalog) -> Sequence[Deployment]:
    """Who is asked for it."""
    return resolve.resolve(name, among, param="model").deployments


def found(name: str, among: Catalog) -> tuple[str, list[tuple[str, str]]]:
    """The id of the model, and who is asked for it by which name."""
    candidates = served(name, among)
    (id,) = {each.model.id for each in candidates}
    asked = [each.spec for each in candidates]
    return id, [(each.provider, each.name or id) for each in asked]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_files(file: Path) -> None:
    """A file holds what the structs know and nothing else, and says when its prices were read."""
    models = catalog.read_family(file.read_bytes())
    head = file.read_text().partition("[[models]]")[0]
    prices = [d.price_per_mtok_usd for model in models for d in model.deployments]
    assert models
    if any(prices):
        assert "Prices" in head
        assert re.search(r"\b20\d\d\b", head)
    dated = [d.price_date is not None for model in models for d in model.deployments]
    assert dated == [bool(price) for price in prices]


@pytest.mark.parametrize(
    "wrong", ["widht = 3", "deployments = [{ provider = 'openai', price = '1' }]", "dimensions='3'"]
)
def test_files_are_read_strictly(wrong: str) -> None:
    """What is misspelt or of the wrong type is no catalog."""
    with pytest.raises(msgspec.ValidationError):
        msgspec.toml.decode(f"[[models]]\nid = 'x'\n{wrong}\n", type=ModelFamily)


def test_ids() -> None:
    """An id is of one model, in lower case, and never looks like `provider:model`."""
    ids = Counter(model.id for model in MODELS)
    assert not [id for id, times in ids.items() if times > 1]
    assert not [id for id in ids if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", id)]
    assert catalog.AUTO_MODEL in ids
    assert catalog.AUTO not in ids


def test_every_model_is_described() -> None:
    """Every model says in a line what it is and whose; a host serves it, or anybody can."""
    for model in MODELS:
        assert model.description.endswith("."), model.id
        assert model.owned_by != "unknown", model.id
        assert model.tags[0] == "embedding", model.id
        assert model.deployments or model.licence not in {"proprietary", "unknown"}, model.id


def test_widths() -> None:
    """Widths are known or known not to be; others it was trained for are sorted and possible."""
    assert {model.id for model in MODELS if model.dimensions is None} == UNKNOWN_WIDTHS
    for model in MODELS:
        trained = model.trained_dimensions
        if trained == "any":
            assert model.dimensions, model.id
        elif trained != "unknown":
            assert trained == sorted(set(trained)), model.id
            assert all(1 < each <= 8192 for each in trained), model.id
        assert 100 <= (model.dimensions or 100) <= 8192, model.id
        assert 128 <= model.max_item_tokens <= 131_072, model.id


def test_facts_of_models() -> None:
    """Licence, pooling and prompts are said in the words that there are, as far as they are."""
    assert {model.id for model in MODELS if model.licence == "unknown"} == UNKNOWN_LICENCES
    for model in MODELS:
        assert re.fullmatch(r"[A-Za-z0-9.-]+", model.licence), model.id
        assert model.pooling in {"mean", "cls", "last_token", "unstated"}, model.id
        assert all(model.prompts.values()), model.id
    well_known = {model.id: model for model in MODELS}
    assert well_known["jina-embeddings-v3"].licence == "CC-BY-NC-4.0"
    e5, qwen = well_known["multilingual-e5-large"], well_known["qwen3-embedding-8b"]
    assert (e5.pooling, e5.normalised) == ("mean", True)
    assert e5.prompts == {"query": "query: ", "document": "passage: "}
    assert (qwen.pooling, qwen.licence) == ("last_token", "Apache-2.0")
    assert qwen.prompts["query"].endswith("\nQuery:")


def test_prices() -> None:
    """No price is off by a factor of 1000, and none has the noise of a float."""
    for model, deployment in SERVED:
        price = deployment.price_per_mtok_usd
        if price is None or deployment.provider == LOCAL:
            continue
        assert Decimal("0.001") <= price <= 2, (model.id, deployment.provider, price)
        assert price == round(price, 5), (model.id, deployment.provider, price)


def test_providers() -> None:
    """Every deployment is at a kind of provider that there is, and not on a server of one's own."""
    kinds = {name for name, row in ROWS.items() if not row.own_server}
    assert {deployment.provider for _, deployment in SERVED} - {LOCAL} == kinds


def test_companies() -> None:
    """Each company's country is known; those said to be of the EU are based there."""
    for row in ROWS.values():
        assert re.fullmatch("" if row.own_server else "[A-Z]{2}", row.hq_country), row.name
        assert not row.eu_native or row.hq_country in check.EU, row.name
    assert {name for name, row in ROWS.items() if row.eu_native} == {
        "mistral",
        "nebius",
        "ovh",
        "scaleway",
    }


def test_limits() -> None:
    """A deployment names a limit only where it is not its provider's anyway."""
    for model, deployment in SERVED:
        if deployment.provider == LOCAL:
            continue
        limits = ROWS[deployment.provider].limits
        assert 1 <= (deployment.max_items or 1) <= 2048, model.id
        assert deployment.max_items != limits.max_items, model.id
        if deployment.max_batch_tokens is not None:
            assert limits.max_tokens is not None, model.id
            assert deployment.max_batch_tokens > limits.max_tokens, model.id


def test_a_name_is_of_one_model() -> None:
    """At a provider, neither an id nor the provider's name for it means two models."""
    meant: dict[tuple[str, str], str] = {}
    served = Counter((model.id, each.provider) for model, each in SERVED)
    assert max(served.values()) == 1
    for model, deployment in SERVED:
        assert deployment.name != model.id, model.id
        for name in {model.id, deployment.name or model.id}:
            assert meant.setdefault((deployment.provider, name), model.id) == model.id


def test_who_counts_tokens() -> None:
    """OpenAI's models, and no other remote ones, are counted with OpenAI's vocabulary."""
    assert {model.id for model in MODELS if model.tokenizer == "cl100k_base"} == {
        model.id for model in MODELS if model.owned_by == "openai"
    }
    assert all(
        model.tokenizer == "unknown" or model.weights
        for model in MODELS
        if model.owned_by != "openai"
    )


@pytest.mark.parametrize(("id", "provider"), WELL_KNOWN)
def test_well_known_facts(id: str, provider: str) -> None:
    """What many people know of a model is what the catalog says."""
    name, width, price = WELL_KNOWN[id, provider]
    model = next(model for model in MODELS if model.id == id)
    deployment = next(each for each in model.deployments if each.provider == provider)
    assert deployment.name == name
    assert model.dimensions == width
    assert deployment.price_per_mtok_usd == (None if price is None else Decimal(price))


def test_nothing_is_offered_unasked() -> None:
    """Without providers there are the models that run here, and no others."""
    alone = offered()
    assert list(alone.models) == [catalog.AUTO_MODEL]
    assert found("auto", alone) == (catalog.AUTO_MODEL, [(LOCAL, catalog.AUTO_MODEL)])
    for name in ("openai:text-embedding-3-small", "bge-m3"):
        with pytest.raises(UnknownModel):
            found(name, alone)


def test_order_is_that_of_declaration() -> None:
    """A bare id asks the provider declared first, then the others that have the model."""
    nebius, scaleway = declared("nebius"), declared("scaleway")
    at_nebius = ("nebius", "Qwen/Qwen3-Embedding-8B")
    at_scaleway = ("scaleway", "qwen3-embedding-8b")
    assert found("qwen3-embedding-8b", offered(nebius, scaleway))[1] == [at_nebius, at_scaleway]
    assert found("qwen3-embedding-8b", offered(scaleway, nebius))[1] == [at_scaleway, at_nebius]
    both = offered(declared("openai-eu", "openai"), declared("openai"))
    assert [who for who, _ in found("text-embedding-3-large", both)[1]] == ["openai-eu", "openai"]


@pytest.mark.parametrize(
    ("provider", "name", "id"),
    [
        ("nebius", "qwen3-embedding-8b", "qwen3-embedding-8b"),
        ("nebius", "Qwen/Qwen3-Embedding-8B", "qwen3-embedding-8b"),
        ("bedrock", "titan-embed-text-v2", "titan-embed-text-v2"),
        ("bedrock", "amazon.titan-embed-text-v2:0", "titan-embed-text-v2"),
        ("bedrock", "cohere.embed-v4:0", "embed-v4.0"),
        ("cloudflare", "@cf/baai/bge-m3", "bge-m3"),
        ("ovh", "BGE-M3", "bge-m3"),
    ],
)
def test_by_id_or_by_the_providers_name(provider: str, name: str, id: str) -> None:
    """`provider:model` takes the id or the provider's name, colons and all, and asks it alone."""
    among = offered(declared("siliconflow"), declared("cohere"), declared(provider))
    known = next(model for model in MODELS if model.id == id)
    there = next(each for each in known.deployments if each.provider == provider)
    assert found(f"{provider}:{name}", among) == (id, [(provider, there.name or id)])


@pytest.mark.parametrize(
    ("provider", "name"),
    [
        ("ollama", "all-minilm:latest"),
        ("ollama", "all-minilm-l6-v2"),
        ("bedrock", "global.cohere.embed-v4:0"),
        ("nebius", "some-org/Brand-New-Embedding"),
        ("nebius", "text-embedding-3-small"),
    ],
)
def test_what_nobody_declared(provider: str, name: str) -> None:
    """A provider may be asked for a model of any name, of which nothing else is known."""
    among = offered(declared("openai"), declared(provider))
    assert found(f"{provider}:{name}", among) == (name, [(provider, name)])
    [candidate] = served(f"{provider}:{name}", among)
    deployment = candidate.spec
    assert not candidate.model.declared
    own = ROWS[provider].own_server
    assert deployment.price_per_mtok_usd == (Decimal(0) if own else None)
    assert deployment.eu_native == ROWS[provider].eu_native


def test_servers_of_ones_own_have_nothing_known() -> None:
    """A server one runs oneself adds no models but those declared for it."""
    mine = Model(id="mine", deployments=[DeploymentSpec(provider="vllm")])
    ollama, vllm = declared("ollama", catalog=False), declared("vllm", models=[mine], catalog=False)
    among = offered(ollama, vllm)
    assert list(among.models) == [catalog.AUTO_MODEL, "mine"]


def test_a_declared_model_replaces_the_known_one() -> None:
    """What is declared for a provider stands in place of what the catalog knows of it there."""
    small = next(model for model in MODELS if model.id == "text-embedding-3-small")
    at_azure = DeploymentSpec(
        provider="west", name="our-small", price_per_mtok_usd=Decimal("0.019")
    )
    own = msgspec.structs.replace(small, deployments=[at_azure])
    among = offered(declared("west", "azure", models=[own]), declared("openai"))
    asked = [("west", "our-small"), ("openai", small.id)]
    assert found(small.id, among) == (small.id, asked)
    assert found("west:our-small", among) == (small.id, asked[:1])
    assert found("west:text-embedding-3-large", among)[1] == [("west", "text-embedding-3-large")]


def test_the_providers_place_is_told_of_each_model() -> None:
    """Whether a deployment is EU-native is its provider's to say, as it is enabled."""
    among = offered(
        declared("nebius"), declared("scaleway", eu_native=False), declared("fireworks")
    )
    candidates = served("qwen3-embedding-8b", among)
    assert [each.spec.eu_native for each in candidates] == [True, False, False]


def test_where_a_deployment_is() -> None:
    """A deployment is where its provider is, as it is enabled: by a variable, or by its row."""
    frankfurt = declared("bedrock", variables={"region": "eu-central-1"})
    among = offered(frankfurt, declared("scaleway"))
    titan, qwen = (among.models[id] for id in ("titan-embed-text-v2", "qwen3-embedding-8b"))
    assert [each.region for each in titan.deployments] == ["eu-central-1"]
    assert [each.hq_country for each in titan.deployments] == ["US"]
    assert [each.region for each in qwen.deployments] == ["Paris, France"]
    elsewhere = offered(declared("scaleway", base_url="https://other.example/v1"))
    [deployment] = elsewhere.models["qwen3-embedding-8b"].deployments
    assert (deployment.region, deployment.hq_country, deployment.eu_native) == ("", "", False)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("text-embedding-3-smal", "'text-embedding-3-small'"),
        ("text-embeding-3-large", "'text-embedding-3-large'"),
        ("Text-Embedding-3-Small", "'text-embedding-3-small'"),
        ("opnai:text-embedding-3-small", "'openai:text-embedding-3-small'"),
        ("bge_m3", "'bge-m3'"),
    ],
)
def test_near_names(name: str, meant: str) -> None:
    """A name that is nearly right is refused with the right one."""
    with pytest.raises(UnknownModel) as refused:
        found(name, offered(declared("openai"), declared("cloudflare")))
    assert meant in refused.value.message


@pytest.mark.parametrize("name", ["", ":", "openai:", ":text-embedding-3-small", "#?!"])
def test_names_of_nothing(name: str) -> None:
    """What names no model is refused, whatever it is."""
    with pytest.raises(UnknownModel):
        found(name, offered(declared("openai")))


def test_facts_are_each_providers_own() -> None:
    """What one section says of a model is not said of another's, though they share its id."""
    here = Model(
        id="text-embedding-3-small", dimensions=384, deployments=[DeploymentSpec(provider="rack")]
    )
    among = offered(declared("rack", "vllm", models=[here], catalog=False), declared("openai"))
    [rack], [openai] = (
        served(f"{who}:text-embedding-3-small", among) for who in ("rack", "openai")
    )
    assert (rack.model.dimensions, openai.model.dimensions) == (384, 1536)
    assert (rack.model.tokenizer, openai.model.tokenizer) == ("unknown", "cl100k_base")
    assert rack.space() != openai.space()
    assert served("text-embedding-3-small", among) == (rack,)


def test_the_built_in_model_stays_its_own() -> None:
    """Another server with a model of the same id is of another space, and never `auto`."""
    known = next(model for model in MODELS if model.id == catalog.AUTO_MODEL)
    other = msgspec.structs.replace(known, weights=None, deployments=[DeploymentSpec("ollama")])
    among = offered(declared("ollama", models=[other], catalog=False))
    here, there = served(catalog.AUTO_MODEL, among)
    assert here.space() != there.space()
    assert found("auto", among)[1] == [(LOCAL, catalog.AUTO_MODEL)]


def test_a_providers_name_comes_first() -> None:
    """A server whose model is called as another provider's is not asked for that one."""
    thief = Model(
        id="openai:text-embedding-3-small", deployments=[DeploymentSpec(provider="ollama")]
    )
    among = offered(declared("ollama", models=[thief], catalog=False), declared("openai"))
    assert found("openai:text-embedding-3-small", among)[1][0][0] == "openai"
    assert found("embedway:all-minilm-l6-v2", among)[1][0][0] == LOCAL
