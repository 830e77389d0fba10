"""Providers as they are declared: by their usual variables, by sections, and by packages."""

import json
import re
import subprocess
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest
from conftest import embedway

from embedway.catalog.catalog import load_catalog
from embedway.config import providers
from embedway.config.exposed import exposed_files
from embedway.config.settings import ConfigError, LoadedSettings, Settings
from embedway.providers.adapter import AddressTemplate, ProviderRow
from embedway.providers.provider_config import ProviderConfig
from embedway.providers.registry import ROWS
from embedway.testing import Upstream

SECRET = "sk-very-secret-0123456789"


def run(folder: Path, *arguments: str, toml: str = "", **env: str) -> subprocess.CompletedProcess:
    (folder / "embedway.toml").write_text(toml)
    done = embedway(*arguments, env={"EMBEDWAY_LOCAL_SERVERS": "false"} | env, cwd=folder)
    assert SECRET not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def listed(folder: Path, toml: str = "", **env: str) -> dict[str, dict]:
    done = run(folder, "providers", "list", "--json", toml=toml, **env)
    assert done.returncode == 0, done.stderr
    return {row["name"]: row for row in json.loads(done.stdout)}


def refused(folder: Path, toml: str, **env: str) -> str:
    done = run(folder, "providers", "list", toml=toml, **env)
    assert done.returncode == 1
    return done.stderr


def test_the_usual_variable_enables(tmp_path: Path) -> None:
    """A provider's usual key, in the environment or in .env, is enough; an empty one is none."""
    assert listed(tmp_path) == {}
    assert listed(tmp_path, OPENAI_API_KEY="") == {}
    found = listed(tmp_path, OPENAI_API_KEY=SECRET)["openai"]
    assert (found["kind"], found["from"], found["keys"]) == ("openai", "OPENAI_API_KEY", 1)
    assert found["base_url"] == "https://api.openai.com/v1"
    assert found["models"] > 0
    (tmp_path / ".env").write_text(f"OPENAI_API_KEY={SECRET}\n")
    assert listed(tmp_path).keys() == {"openai"}


def test_a_section_says_more(tmp_path: Path) -> None:
    """A section names keys, several or by variable, and addresses; sections come first."""
    toml = """
        [providers.mine]
        kind = "vllm"
        base_url = "http://10.0.0.5:8000/v1"
        [providers.openai-eu]
        kind = "openai"
        api_keys = ["$ONE", "${TWO}"]
        base_url = "https://eu.example/v1"
    """
    found = listed(tmp_path, toml, ONE=SECRET, TWO=SECRET, OPENAI_API_KEY=SECRET)
    assert list(found) == ["mine", "openai-eu", "openai"]
    assert [row["keys"] for row in found.values()] == [0, 2, 1]
    assert found["openai-eu"]["base_url"] == "https://eu.example/v1"
    assert found["mine"]["from"] == "embedway.toml"


def test_a_section_can_say_no(tmp_path: Path) -> None:
    """`enabled = false` keeps out a provider whose key is found."""
    off = "[providers.openai]\nenabled = false\n"
    assert listed(tmp_path, off, OPENAI_API_KEY=SECRET) == {}


def test_a_section_takes_the_usual_key(tmp_path: Path) -> None:
    """A section without a key uses the usual variable."""
    found = listed(tmp_path, "[providers.openai]\n", OPENAI_API_KEY=SECRET)
    assert (found["openai"]["keys"], found["openai"]["from"]) == (1, "embedway.toml")


@pytest.mark.parametrize(
    ("toml", "told"),
    [
        ("[providers.opnai]\n", ["[providers.opnai]", "Did you mean 'openai'?"]),
        ("[providers.x]\nkind = 3\n", ["[providers.x]: kind"]),
        ("[providers.openai]\n", ["OPENAI_API_KEY", "needs a key"]),
        ("[providers.openai]\napi_key = '$NOT_THERE'\n", ["$NOT_THERE is not set"]),
        (
            f"[providers.openai]\napi_keyy = '{SECRET}'\n",
            ["there is no setting api_keyy", "Did you mean api_key"],
        ),
        (f"[providers.openai]\napi_key = ['{SECRET}']\n", ["[providers.openai]: api_key"]),
        (
            f"[providers.openai]\nbase_url = 'ftp://{SECRET}'\n",
            ["base_url: it must begin with https://"],
        ),
        ("[providers.OpenAI]\n", ["OpenAI"]),
        ("[providers.embedway]\n", ["reserved for local models"]),
        ("[providers.databricks]\napi_key = 'x'\n", ["host is missing", "DATABRICKS_HOST"]),
        ("[providers.vllm]\nhq_country = 'France'\n", ["hq_country", "such as FR"]),
        ("providers = 3\n", ["[providers.NAME]"]),
        (f"providers = '{SECRET}'\n", ["[providers.NAME]"]),
        (f"[providers.openai]\nbase_url = 'https://u:{SECRET}@x/v1'\n", ["use api_key"]),
        (f"[providers.openai]\nbase_url = 'https://x/v1?code={SECRET}'\n", ["use api_key"]),
        ("[providers.openai]\nbase_url = 'https://x/v1#part'\n", ["after # is never sent"]),
        (
            "[providers.together]\nbase64 = true\napi_key = 'x'\n",
            ["base64 = true", "Remove the line"],
        ),
        ("[providers.vllm]\nbase_url = 'https://x/{tenant}/v1'\n", ["it must begin with https://"]),
        (f'[providers.openai]\napi_key = "{SECRET}\\u0000"\n', ["characters that no key has"]),
        ("[providers.databricks]\napi_key = 'x'\nhost = 'acme.example'\n", ["its address is"]),
        ("[providers.a]\nkind='x'\n[providers.b]\nkind='y'\n", ["[providers.a]", "[providers.b]"]),
        ("[providers.vllm]\n[[providers.vllm.models]]\nid = 'auto'\n", ["'auto' is reserved"]),
        (
            f"[providers.openai]\napi_key = '{SECRET}'\n[[providers.openai.models]]\nname = 'x'\n",
            ["model 1: id is missing"],
        ),
        (
            f"[providers.openai]\napi_key='{SECRET}'\n[[providers.openai.models]]\nid='x'\ndims=3\n",
            ["model 'x': there is no setting dims"],
        ),
    ],
)
def test_wrong_sections(tmp_path: Path, toml: str, told: list[str]) -> None:
    """What is wrong in a section is told with its place and a cure, and no key is shown."""
    message = refused(tmp_path, toml)
    assert all(each in message for each in told), message


def test_declared_models(tmp_path: Path) -> None:
    """A declared model takes from the catalog what is not said; a new one is what is said of it."""
    toml = f"""
        [providers.west]
        kind = "openai"
        api_key = "{SECRET}"
        [[providers.west.models]]
        id = "text-embedding-3-small"
        name = "my-deployment"
        price_per_mtok_usd = "0.011"
        [[providers.west.models]]
        id = "own-model"
        dimensions = 12
        trained_dimensions = [4, 8]
        max_item_tokens = 100
    """
    done = run(tmp_path, "models", "list", "--json", toml=toml)
    rows = {row["id"]: row for row in json.loads(done.stdout)}
    known, own = rows["west:text-embedding-3-small"], rows["west:own-model"]
    assert (known["dimensions"], known["usd_per_mtok"]) == (1536, "0.011")
    assert (own["dimensions"], own["max_item_tokens"], own["usd_per_mtok"]) == (12, 100, None)


def test_every_fact_can_be_said_otherwise() -> None:
    """Sections say of a known model and of its place what they like; the rest stays as it is."""
    told = {
        "licence": "LicenseRef-Own",
        "prompts": {"query": "find: "},
        "pooling": "mean",
        "normalised": False,
        "native_dimensions": 2048,
    }
    place = {"quantisation": "int4", "price_date": date(2026, 9, 1), "region": "rack 3"}
    section = {
        "api_key": SECRET,
        "region": "somewhere",
        "hq_country": "DE",
        "models": [{"id": "qwen3-embedding-8b", **told, **place}, {"id": "own"}],
    }
    loaded = LoadedSettings(
        Settings(providers={"nebius": section}), {"providers": "a file"}, [], {}
    )
    catalog = load_catalog(
        eu_native=False, offers=providers.provider_offers(providers.enabled_providers(loaded))
    )
    model, own = catalog.models["qwen3-embedding-8b"], catalog.models["own"]
    [deployment], [other] = model.deployments, own.deployments
    assert {name: getattr(model, name) for name in told} == told
    assert {name: getattr(deployment, name) for name in place} == place
    assert (model.dimensions, deployment.price_per_mtok_usd) == (4096, Decimal("0.01"))
    assert (deployment.hq_country, other.hq_country, other.region) == ("DE", "DE", "somewhere")


def test_a_price_of_ones_own_has_its_own_date() -> None:
    """The date of a known price is not that of another one."""
    models = [{"id": "text-embedding-3-small", "price_per_mtok_usd": "0.01"}]
    section = {"api_key": SECRET, "models": models}
    loaded = LoadedSettings(
        Settings(providers={"openai": section}), {"providers": "a file"}, [], {}
    )
    catalog = load_catalog(
        eu_native=False, offers=providers.provider_offers(providers.enabled_providers(loaded))
    )
    dates = {
        each.model.id: each.spec.price_date
        for each in catalog.deployments()
        if each.provider == "openai"
    }
    assert dates["text-embedding-3-small"] is None
    assert dates["text-embedding-3-large"] == date(2026, 8, 1)


def test_a_region_is_asked_where_it_is_part_of_the_address() -> None:
    """`region` of Bedrock, here or from a variable, is where it is asked and where it is."""
    for section, variables in (
        ({"region": "$WHERE"}, {"WHERE": "eu-west-3"}),
        ({}, {"AWS_REGION": "eu-west-3"}),
    ):
        settings = Settings(providers={"bedrock": {"api_key": SECRET, **section}})
        enabled = providers.enabled_providers(
            LoadedSettings(settings, {"providers": "a file"}, [], variables)
        )
        assert enabled[0].url == "https://bedrock-runtime.eu-west-3.amazonaws.com"
        assert providers.provider_offers(enabled)[0].unlisted.region == "eu-west-3"


def test_keys_are_shown_nowhere(tmp_path: Path) -> None:
    """`config show` names the sections and nothing in them."""
    toml = f"[providers.openai]\napi_key = '{SECRET}'\n"
    done = run(tmp_path, "config", "show", "--json", toml=toml)
    rows = {row["setting"]: row["value"] for row in json.loads(done.stdout)}
    assert rows["providers"] == "openai"


def test_a_package_brings_a_provider(tmp_path: Path) -> None:
    """An installed package's entry point adds a kind of provider, with an adapter of its own."""
    packages = tmp_path / "packages"
    meta = packages / "acme_provider-1.0.dist-info"
    meta.mkdir(parents=True)
    (meta / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-provider\nVersion: 1.0\n")
    (meta / "entry_points.txt").write_text("[embedway.providers]\nacme = acme_provider:ROW\n")
    module = packages / "acme_provider.py"
    module.write_text(
        "from embedway.providers.adapter import ProviderRow\n"
        "from embedway.providers.adapters.openai import OpenAi\n"
        "class Acme(OpenAi):\n"
        "    'Speaks as OpenAI does.'\n"
        "ROW = ProviderRow(name='acme', title='Acme', adapter='acme_provider:Acme', source='us',\n"
        "          base_url='https://acme.example/v1', key_variables=('ACME_KEY',))\n"
    )
    found = listed(tmp_path, ACME_KEY=SECRET, PYTHONPATH=str(packages))
    assert found["acme"]["base_url"] == "https://acme.example/v1"
    for content, told in (
        ("ROW = 3\n", "acme_provider:ROW is not an embedway.providers.adapter.ProviderRow"),
        ("import nothing_of_this_name\n", "acme_provider:ROW cannot be imported"),
        (
            module.read_text().replace("name='acme'", "name='openai'"),
            "is named 'openai', like another provider",
        ),
    ):
        module.write_text(content)
        done = run(tmp_path, "providers", "list", PYTHONPATH=str(packages))
        assert (done.returncode, told in done.stderr) == (1, True), done.stderr


def test_trying_a_provider_that_is_not_there(tmp_path: Path) -> None:
    """`providers test` says what to do about a provider that is unknown or does not answer."""
    assert "Provider 'x' is not enabled" in run(tmp_path, "providers", "test", "x").stderr
    toml = "[providers.vllm]\nbase_url = 'http://127.0.0.1:1/v1'\n"
    assert (
        "No model of 'vllm' is known"
        in run(tmp_path, "providers", "test", "vllm", toml=toml).stderr
    )
    done = run(tmp_path, "providers", "test", "vllm", "--model", "m", toml=toml)
    assert done.returncode == 1
    assert "nothing answers at http://127.0.0.1:1/v1" in done.stderr


def test_keys_for_other_things_stop_nothing(tmp_path: Path) -> None:
    """What is half set for a provider leaves it out, and is told; it stops no other."""
    broken = {
        "AZURE_OPENAI_API_KEY": SECRET,
        "DATABRICKS_TOKEN": SECRET,
        "DATABRICKS_HOST": "acme.example",
        "OPENAI_API_KEY": SECRET,
        "VLLM_API_KEY": SECRET,
    }
    done = run(tmp_path, "providers", "list", **broken)
    assert done.returncode == 0, done.stderr
    assert "azure: AZURE_OPENAI_API_KEY is set, but not AZURE_OPENAI_ENDPOINT" in done.stderr
    assert "databricks: it must begin with https://" in done.stderr
    assert listed(tmp_path, **broken).keys() == {"openai"}
    off = {"EMBEDWAY_PROVIDERS_FROM_ENVIRONMENT": "false"}
    assert listed(tmp_path, **(broken | off)) == {}


def test_a_key_in_parts() -> None:
    """AWS' key is in three variables, and all of them may be in .env."""
    variables = {
        "AWS_ACCESS_KEY_ID": "AKIA" + "A" * 16,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "eu-central-1",
    }
    loaded = LoadedSettings(Settings(), {}, [], variables)
    [found] = providers.enabled_providers(loaded)
    assert (found.name, found.keys) == ("bedrock", [f"AKIA{'A' * 16}:{SECRET}"])


def test_wrong_sections_stop_those_who_need_them(tmp_path: Path) -> None:
    """A mistake in a section is told by `doctor`; commands that ask nobody go on."""
    wrong = "[providers.openai]\napi_key = '$NOT_THERE'\n"
    env = {"EMBEDWAY_DATA_DIR": str(tmp_path / "data")}
    assert run(tmp_path, "db", "init", toml=wrong, **env).returncode == 0
    assert run(tmp_path, "keys", "list", toml=wrong, **env).returncode == 0
    done = run(tmp_path, "doctor", toml=wrong, **env)
    assert done.returncode == 1
    assert "fail providers" in done.stdout
    assert "$NOT_THERE is not set" in done.stdout


def test_an_address_of_ones_own_is_not_the_providers(tmp_path: Path) -> None:
    """A server that only speaks as OpenAI has none of its models, unless the section says so."""
    section = "[providers.{name}]\nkind = 'openai'\napi_key = 'x'\nbase_url = '{url}'\n{more}\n"

    def models(name: str, url: str, more: str = "") -> int:
        return listed(tmp_path, section.format(name=name, url=url, more=more))[name]["models"]

    assert models("mine", "http://127.0.0.1:1/v1") == 0
    assert models("mine", "http://127.0.0.1:1/v1", "catalog = true") == 3
    assert models("eu", "https://eu.api.openai.com/v1") == 3
    assert models("openai", "http://127.0.0.1:1/v1") == 3


# Where the environment sends keys and texts.

READ_BY_SDKS: dict[str, set[str]] = {
    "openai": {
        *("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_BASE_URL", "OPENAI_API_BASE"),
        *("OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_CUSTOM_HEADERS", "OPENAI_API_TYPE"),
    },
    "mistral": {"MISTRAL_API_KEY"},
    "together": {"TOGETHER_API_KEY", "TOGETHER_BASE_URL"},
    "fireworks": {"FIREWORKS_API_KEY", "FIREWORKS_BASE_URL", "FIREWORKS_CREDENTIAL_CMD"},
    "deepinfra": {"DEEPINFRA_API_KEY", "DEEPINFRA_BASE_URL"},
    "nebius": {"NEBIUS_API_KEY"},
    "scaleway": {"SCW_SECRET_KEY"},
    "ovh": {"OVH_AI_ENDPOINTS_ACCESS_TOKEN"},
    "siliconflow": {"SILICONFLOW_API_KEY"},
    "dashscope": {
        *("DASHSCOPE_API_KEY", "DASHSCOPE_API_KEY_FILE_PATH", "DASHSCOPE_HTTP_BASE_URL"),
        *("DASHSCOPE_COMPATIBLE_BASE_URL", "DASHSCOPE_API_REGION", "DASHSCOPE_API_VERSION"),
        "DASHSCOPE_WORKSPACE_ID",
    },
    "databricks": {
        *("DATABRICKS_HOST", "DATABRICKS_TOKEN", "DATABRICKS_CLIENT_ID"),
        *("DATABRICKS_CLIENT_SECRET", "DATABRICKS_CONFIG_PROFILE"),
    },
    "perplexity": {"PERPLEXITY_API_KEY", "PPLX_API_KEY", "PERPLEXITY_BASE_URL"},
    "nvidia": {"NVIDIA_API_KEY", "NVIDIA_BASE_URL"},
    "openrouter": {"OPENROUTER_API_KEY"},
    "vercel": {"AI_GATEWAY_API_KEY", "VERCEL_OIDC_TOKEN"},
    "novita": {"NOVITA_API_KEY"},
    "venice": {"VENICE_API_KEY"},
    "mixedbread": {"MXBAI_API_KEY", "MIXEDBREAD_BASE_URL"},
    "pinecone": {"PINECONE_API_KEY", "PINECONE_CONTROLLER_HOST", "PINECONE_ADDITIONAL_HEADERS"},
    "foundry": set(),
    "snowflake": set(),
    "cohere": {"CO_API_KEY", "COHERE_API_KEY", "CO_API_URL"},
    "voyage": {"VOYAGE_API_KEY", "VOYAGE_API_KEY_PATH"},
    "jina": {"JINA_API_KEY"},
    "nomic": {"NOMIC_API_KEY", "ATLAS_API_PATH"},
    "huggingface": {
        *("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH"),
        *("HF_ENDPOINT", "HF_INFERENCE_ENDPOINT"),
    },
    "cloudflare": {
        *("CLOUDFLARE_API_TOKEN", "CLOUDFLARE_API_KEY", "CLOUDFLARE_EMAIL"),
        "CLOUDFLARE_BASE_URL",
    },
    "watsonx": {"WATSONX_APIKEY", "WATSONX_URL", "PROJECT_ID", "SPACE_ID", "USER_ACCESS_TOKEN"},
    "azure": {
        *("AZURE_OPENAI_API_KEY", "AZURE_OPENAI_AD_TOKEN", "AZURE_OPENAI_ENDPOINT"),
        "OPENAI_API_VERSION",
    },
    "gemini": {
        *("GOOGLE_API_KEY", "GEMINI_API_KEY", "GOOGLE_GEMINI_BASE_URL"),
        *("GOOGLE_GENAI_USE_VERTEXAI", "GOOGLE_GENAI_USE_ENTERPRISE"),
    },
    "vertex": {
        *("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_API_KEY", "GOOGLE_CLOUD_PROJECT"),
        *("GOOGLE_CLOUD_LOCATION", "GOOGLE_VERTEX_BASE_URL"),
    },
    "bedrock": {
        *("AWS_BEARER_TOKEN_BEDROCK", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
        *("AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL"),
        *("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"),
    },
    "ollama": {"OLLAMA_HOST", "OLLAMA_API_KEY"},
    "lmstudio": set(),
    "nim": set(),
    "vllm": set(),
    "tei": set(),
    "infinity": set(),
    "llamacpp": set(),
    "xinference": set(),
    "localai": set(),
    "dockermodelrunner": set(),
}
"""What each provider's own package reads for keys and addresses, in versions of November 2026."""

USUAL = {
    "AWS_REGION": "eu-west-1",
    "AZURE_OPENAI_ENDPOINT": "https://acme.openai.azure.com",
    "CLOUDFLARE_ACCOUNT_ID": "account",
    "DATABRICKS_HOST": "https://acme.example",
    "GOOGLE_CLOUD_LOCATION": "eu",
    "GOOGLE_CLOUD_PROJECT": "project",
    "WATSONX_URL": "https://eu-de.ml.cloud.ibm.com",
}
"""What rows must be told beside a key."""

each_row = pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)


def found(**variables: str) -> dict[str, ProviderConfig]:
    loaded = LoadedSettings(Settings(), {}, [], variables)
    return {each.name: each for each in providers.enabled_providers(loaded)}


def left_out(**variables: str) -> str:
    loaded = LoadedSettings(Settings(), {}, [], variables)
    assert providers.enabled_providers(loaded) == []
    return "\n".join(providers.incomplete_providers(loaded))


@each_row
def test_what_its_own_package_reads(row: ProviderRow) -> None:
    """A kind reads all that its own package reads for keys and addresses, or says why not."""
    unread = READ_BY_SDKS[row.name] - row.environment()
    assert unread == {name for name in unread if re.search(rf"\b{name}\b", row.notes)}


ADDRESSES = [
    pytest.param(row, row.address, name, id=name)
    for row in ROWS.values()
    if row.address
    for name in row.address.variables
]


@pytest.mark.parametrize(("row", "address", "name"), ADDRESSES)
def test_the_environments_address(row: ProviderRow, address: AddressTemplate, name: str) -> None:
    """Where the environment names an address, keys and texts go there, and never elsewhere."""
    key = next(each for each in row.key_variables if each not in row.key_files)
    env = {**USUAL, key: SECRET}
    usual = found(**env)[row.name]
    assert usual.base_url is None
    for url in ("http://10.0.0.5:4000/proxy", "http://10.0.0.5:4000/proxy/"):
        moved = found(**env, **{name: url})[row.name]
        assert moved.url == "http://10.0.0.5:4000/proxy" + address.path.format_map(usual.values)
        assert moved.origin == f"{key}, {name}"
        with_query = found(**env, **{name: f"{url}?version=1"})[row.name]
        assert with_query.url == f"{moved.url}?version=1"
    for url in ("10.0.0.5:4000", "https://x/{region}/v1"):
        assert f"{row.name}: {name}: it must begin with https://" in left_out(**env, **{name: url})
    own = usual.url.removesuffix(address.path.format_map(usual.values))
    for end in ("", *address.strip):
        assert found(**env, **{name: own + end})[row.name].url == usual.url


def test_a_section_and_the_environments_address() -> None:
    """A section without an address takes the environment's; its own comes first."""
    env = {"OPENAI_API_KEY": SECRET, "OPENAI_BASE_URL": "http://10.0.0.5:4000/v1"}
    for section, url in (
        ({}, "http://10.0.0.5:4000/v1"),
        ({"api_key": "sk-another"}, "http://10.0.0.5:4000/v1"),
        ({"base_url": "https://api.openai.com/v1"}, "https://api.openai.com/v1"),
    ):
        loaded = LoadedSettings(
            Settings(providers={"openai": section}), {"providers": "a file"}, [], env
        )
        [declared] = providers.enabled_providers(loaded)
        assert declared.url == url
    loaded = LoadedSettings(
        Settings(providers={"openai": {}}),
        {"providers": "a file"},
        [],
        env | {"OPENAI_BASE_URL": "10.0.0.5"},
    )
    with pytest.raises(ConfigError, match=r"its address is '10\.0\.0\.5'"):
        providers.enabled_providers(loaded)


def test_an_address_of_the_environment_is_not_the_providers() -> None:
    """Nothing that is known of OpenAI's place is said of a proxy at an address of one's own."""
    env = {"SCW_SECRET_KEY": SECRET, "NVIDIA_API_KEY": SECRET}
    there, here = (
        providers.provider_offers(list(found(**env, **more).values()))
        for more in ({}, {"NVIDIA_BASE_URL": "http://10.0.0.5:8000"})
    )
    assert [each.unlisted.hq_country for each in there] == ["FR", "US"]
    assert [each.unlisted.hq_country for each in here] == ["FR", ""]


def test_keys_and_texts_go_where_the_environment_says(upstream: Upstream, tmp_path: Path) -> None:
    """With OPENAI_BASE_URL set the command asks there, with the headers of the account."""
    upstream.reset()
    env = {
        "OPENAI_API_KEY": SECRET,
        "OPENAI_BASE_URL": f"{upstream.url}/openai/v1",
        "OPENAI_ORG_ID": "org-1",
        "OPENAI_PROJECT_ID": "proj_1",
    }
    done = run(tmp_path, "providers", "test", "openai", "--model", "m", **env)
    assert done.returncode == 0, done.stderr
    [call] = upstream.calls
    assert call.headers["authorization"] == f"Bearer {SECRET}"
    assert call.headers["openai-organization"] == "org-1"
    assert call.headers["openai-project"] == "proj_1"


@pytest.mark.parametrize(
    ("variables", "name"),
    [
        ({"OPENAI_API_KEY": SECRET, "OPENAI_API_TYPE": "azure"}, "openai"),
        ({"GOOGLE_API_KEY": SECRET, "GOOGLE_GENAI_USE_VERTEXAI": "True"}, "gemini"),
        ({"GEMINI_API_KEY": SECRET, "GOOGLE_GENAI_USE_ENTERPRISE": "1"}, "gemini"),
        ({"DASHSCOPE_API_KEY": SECRET, "DASHSCOPE_API_REGION": "eu-central-1"}, "dashscope"),
    ],
)
def test_a_key_for_another_address(variables: dict[str, str], name: str) -> None:
    """A key that the environment says is for another address is left out, and told."""
    told = left_out(**variables)
    assert told.startswith(f"{name}: {list(variables)[1]} is")
    assert SECRET not in told


def test_keys_in_files(tmp_path: Path) -> None:
    """A key may be in a file that a variable names; one that cannot be read is told."""
    path = tmp_path / "key"
    path.write_text(f"{SECRET}\n")
    path.chmod(0o644)
    for name, kind in (
        ("VOYAGE_API_KEY_PATH", "voyage"),
        ("DASHSCOPE_API_KEY_FILE_PATH", "dashscope"),
    ):
        assert found(**{name: str(path)})[kind].keys == [SECRET]
        assert exposed_files(LoadedSettings(Settings(), {}, [], {name: str(path)})) == [path]
        told = left_out(**{name: str(tmp_path / "nothing")})
        assert f"{kind}: {name}: the file {tmp_path / 'nothing'} cannot be read" in told
    both = {"VOYAGE_API_KEY_PATH": str(path), "VOYAGE_API_KEY": "pa-other"}
    assert found(**both)["voyage"].keys == [SECRET]


def test_keys_of_two_addresses() -> None:
    """Voyage's keys of MongoDB go to MongoDB, unless an address is declared; never both to one."""
    assert found(VOYAGE_API_KEY="pa-1")["voyage"].url == "https://api.voyageai.com/v1"
    assert found(VOYAGE_API_KEY="al-1")["voyage"].url == "https://ai.mongodb.com/v1"

    def url(**section: object) -> str:
        settings = Settings(providers={"voyage": section})
        return providers.enabled_providers(
            LoadedSettings(settings, {"providers": "a file"}, [], {})
        )[0].url

    assert url(api_keys=["al-1", "al-2"]) == "https://ai.mongodb.com/v1"
    assert url(api_key="al-1", base_url="https://proxy.example/v1") == "https://proxy.example/v1"
    with pytest.raises(ConfigError, match="begin with 'al-' need another base_url"):
        url(api_keys=["al-1", "pa-1"])


@pytest.mark.parametrize(
    ("region", "host"),
    [
        ("europe-west4", "europe-west4-aiplatform.googleapis.com"),
        ("global", "aiplatform.googleapis.com"),
        ("us", "aiplatform.us.rep.googleapis.com"),
        ("eu", "aiplatform.eu.rep.googleapis.com"),
    ],
)
def test_the_hosts_of_vertex(region: str, host: str) -> None:
    """Vertex AI's locations of several regions have hosts of their own, as Google's package has."""
    variables = {
        "GOOGLE_APPLICATION_CREDENTIALS": "/a/file.json",
        "GOOGLE_CLOUD_PROJECT": "p",
        "GOOGLE_CLOUD_LOCATION": region,
    }
    vertex = found(**variables)["vertex"]
    assert vertex.url == f"https://{host}/v1/projects/p/locations/{region}"


def test_the_region_of_aws() -> None:
    """AWS' region may be in either variable; the one that its command line prefers comes first."""
    key = {"AWS_BEARER_TOKEN_BEDROCK": SECRET}
    for variables, region in (
        ({"AWS_DEFAULT_REGION": "eu-west-3"}, "eu-west-3"),
        ({"AWS_DEFAULT_REGION": "eu-west-3", "AWS_REGION": "us-east-1"}, "us-east-1"),
    ):
        assert f".{region}." in found(**key, **variables)["bedrock"].url
    ignored = {"AWS_ENDPOINT_URL": "http://x:1", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"}
    assert "amazonaws.com" in found(**key, AWS_REGION="eu-west-3", **ignored)["bedrock"].url


def test_a_password_in_an_address_is_not_printed(tmp_path: Path) -> None:
    """An address from the environment that is refused is shown without what it hides."""
    toml = "local_servers = false\n[providers.openai]\napi_key = 'k'\n"
    done = run(
        tmp_path, "providers", "list", toml=toml, OPENAI_BASE_URL="https://user:hidden@x.example/v1"
    )
    assert done.returncode == 1
    assert "an address with a user in it" in done.stderr
    assert "hidden" not in done.stderr


@pytest.mark.parametrize(
    "query", ["key=hidden", "auth=hidden", "v=1;key=hidden", "v=1&Authorization=hidden"]
)
def test_a_key_in_the_query_of_an_address_is_refused(query: str) -> None:
    """A key in the query of an address would be shown with it, so it is refused, unseen."""
    section = {"base_url": f"https://x.example/v1?{query}", "api_key": "k"}
    loaded = LoadedSettings(
        Settings(providers={"openai": section}), {"providers": "a file"}, [], {}
    )
    with pytest.raises(ConfigError, match="shows the key: use api_key") as caught:
        providers.enabled_providers(loaded)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("end", ["", "/", "/models", "/models/"])
def test_the_address_of_foundry(end: str) -> None:
    """The address of a Foundry resource may have the ends that Microsoft's pages give it."""
    place = f"https://acme.services.ai.azure.com{end}"
    right = "https://acme.services.ai.azure.com/providers/cohere/v2"
    env = {"AZURE_AI_API_KEY": SECRET, "AZURE_AI_API_BASE": place}
    assert found(**env)["foundry"].url == right
    section = {"api_key": "k", "endpoint": place}
    loaded = LoadedSettings(
        Settings(providers={"foundry": section}), {"providers": "a file"}, [], {}
    )
    assert [each.url for each in providers.enabled_providers(loaded)] == [right]
