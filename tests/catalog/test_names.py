"""Names: what they stand for, who is told what of wrong ones, and what is refused at start."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Gateway, embedway

from embedway.catalog.catalog import Catalog, ResolvedName
from embedway.catalog.policy import ModelPolicy
from embedway.config import settings as config
from embedway.config.models import build_catalog
from embedway.config.providers import enabled_providers
from embedway.config.settings import ConfigError
from embedway.core.errors import UnknownModel
from embedway.routing.resolve import resolve

SMALL = "text-embedding-3-small"
LOCAL = "embedway:all-minilm-l6-v2"
SECRET = "sk-secret-of-a-provider"
PROVIDERS = f"""
local_servers = false
providers_from_environment = false

[providers.openai]
api_key = "{SECRET}"

[providers.west]
kind = "openai"
api_key = "{SECRET}"
catalog = true

[providers.gemini]
api_key = "{SECRET}"

[providers.mistral]
api_key = "{SECRET}"

[providers.nebius]
api_key = "{SECRET}"

[providers.ollama]
base_url = "http://127.0.0.1:9/v1"

[[providers.ollama.models]]
id = "docs-model"
dimensions = 4
normalised = true

[providers.tei]
base_url = "http://127.0.0.1:9"

[[providers.tei.models]]
id = "docs-model"
dimensions = 8

[providers.vllm]
base_url = "http://127.0.0.1:9/v1"

[[providers.vllm.models]]
id = "docs-model"
dimensions = 4
normalised = true
"""

Load = Callable[..., Catalog]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """The catalog of a gateway with these lines in its settings file, and variables."""

    def loaded(sections: str = "", *, top: str = "", **variables: str) -> Catalog:
        file = tmp_path / "gateway.toml"
        file.write_text(f"{top}\n{PROVIDERS}\n{sections}")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("EMBEDWAY_CONFIG", str(file))
        for name, value in variables.items():
            monkeypatch.setenv(f"EMBEDWAY_{name}", value)
        settings = config.load_settings()
        return build_catalog(settings.settings, enabled_providers(settings))

    return loaded


def asked(named: ResolvedName) -> list[str]:
    """The deployments, in order."""
    return [each.id for each in named.deployments]


def meant(name: str, among: Catalog) -> tuple[list[str], bool, bool]:
    """The deployments, whether the provider was named, and whether their order was."""
    named = resolve(name, among, param="model")
    return asked(named), named.is_pinned, named.is_ordered


def test_auto_is_pinned(load: Load) -> None:
    """Unless it is set, `auto` is the model that runs here, there and nowhere else."""
    assert meant("auto", load()) == ([LOCAL], True, False)


@pytest.mark.parametrize(
    ("name", "served", "explicit"),
    [
        (f"west:{SMALL}", [f"west:{SMALL}"], True),
        (SMALL, [f"openai:{SMALL}", f"west:{SMALL}"], False),
        ("openai:brand-new", ["openai:brand-new"], True),
        ("fast", [f"west:{SMALL}"], True),
    ],
)
def test_auto_is_set(load: Load, name: str, served: list[str], explicit: bool) -> None:
    """`auto` is any name: of a deployment, of a model, of one that nobody declared, an alias."""
    aliases = f'[aliases]\nfast = "west:{SMALL}"\n'
    assert meant("auto", load(aliases, top=f'auto = "{name}"')) == (served, explicit, False)
    assert meant("auto", load(aliases, AUTO=name)) == (served, explicit, False)


def test_aliases(load: Load) -> None:
    """An alias stands for a name, for names in order, or for another alias."""
    among = load(
        f"""
        [aliases]
        one = "west:{SMALL}"
        any = "{SMALL}"
        ordered = ["west:{SMALL}", "openai:{SMALL}"]
        "then any" = ["west:{SMALL}", "{SMALL}"]
        bare-first = ["{SMALL}", "west:{SMALL}"]
        single = ["west:{SMALL}"]
        "of/an alias" = "ordered"
        of-auto = "auto"
        """
    )
    openai, west = f"openai:{SMALL}", f"west:{SMALL}"
    assert meant("one", among) == meant("single", among) == ([west], True, False)
    assert meant("any", among) == ([openai, west], False, False)
    assert meant("ordered", among) == meant("then any", among) == ([west, openai], True, True)
    assert meant("of/an alias", among) == meant("ordered", among)
    assert meant("bare-first", among) == ([openai, west], False, True)
    assert meant("of-auto", among) == meant("auto", among)
    assert among.aliases["of/an alias"] == (west, openai)
    assert among.aliases["auto"] == (LOCAL,)


def test_a_bare_id_is_of_one_space(load: Load) -> None:
    """Deployments of one id with other facts are asked by their own names alone."""
    among = load()
    assert meant("docs-model", among) == (
        ["ollama:docs-model", "vllm:docs-model"], False, False
    )  # fmt: skip
    assert meant("tei:docs-model", among) == (["tei:docs-model"], True, False)


@pytest.mark.parametrize("pinned", ['reference = "tei"', 'only = ["tei"]'])
def test_whose_facts_a_bare_id_stands_for(load: Load, pinned: str) -> None:
    """The facts of a bare id are those of its reference, or of those that are pinned."""
    among = load(f"[models.docs-model]\n{pinned}\n")
    assert meant("docs-model", among)[0] == ["tei:docs-model"]


@pytest.mark.parametrize(
    ("name", "served", "declared"),
    [
        ("gemini:gemini-embedding-001", "gemini:gemini-embedding-001", True),
        ("gemini:models/gemini-embedding-001", "gemini:gemini-embedding-001", True),
        ("gemini:models/of-tomorrow", "gemini:models/of-tomorrow", False),
        ("nebius:Qwen/Qwen3-Embedding-8B", "nebius:qwen3-embedding-8b", True),
        ("ollama:models/docs-model", "ollama:models/docs-model", False),
        ("ollama:all-minilm:latest", "ollama:all-minilm:latest", False),
        ("tei:whatever", "tei:whatever", False),
    ],
)
def test_a_providers_own_words(load: Load, name: str, served: str, declared: bool) -> None:
    """A provider's model is found as the provider lists it; any other name is handed on."""
    named = resolve(name, load(), param="model")
    assert (asked(named), named.is_pinned) == ([served], True)
    assert named.deployments[0].model.declared == declared


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("TEXT-EMBEDDING-3-SMALL", SMALL),
        ("text_embedding_3_smal", SMALL),
        (f"openai/{SMALL}", f"openai:{SMALL}"),
        (f"opnai:{SMALL}", f"openai:{SMALL}"),
        ("Qwen/Qwen3-Embedding-8B", "nebius:qwen3-embedding-8b"),
        ("Our-Dcos", "our-docs"),
        ("AUTO", "auto"),
        ("atuo", "auto"),
    ],
)
def test_near_names(load: Load, name: str, near: str) -> None:
    """A name that nobody has is refused with the nearest: an id, a deployment, an alias."""
    among = load(f'[aliases]\nour-docs = "{SMALL}"\n')
    with pytest.raises(UnknownModel) as refused:
        resolve(name, among, param="model")
    assert f"Did you mean {near!r}" in refused.value.message


def test_a_long_name_among_many(load: Load) -> None:
    """However long a name and however many it is near to, it is refused, and three are told."""
    names = [f"{'ab' * 90}-{number}" for number in range(500)]
    among = load("[aliases]\n" + "".join(f'{name} = "{SMALL}"\n' for name in names))
    for name in ("ab" * 128, "-" * 256, "ﬃ" * 256, "\n" * 3):
        with pytest.raises(UnknownModel) as refused:
            resolve(name, among, param="model")
        assert refused.value.message.count("'") <= 8


REFUSED = {
    "other models": (
        '[aliases]\ndocs = ["openai:text-embedding-3-small", "mistral-embed"]',
        "gateway.toml: alias 'docs': 'openai:text-embedding-3-small' and 'mistral-embed' are of "
        "different vector spaces; their vectors cannot be compared.",
    ),
    "other facts": (
        '[aliases]\ndocs = ["ollama:docs-model", "tei:docs-model"]',
        "alias 'docs': 'ollama:docs-model' and 'tei:docs-model' are of different vector spaces",
    ),
    "by way of another alias": (
        '[aliases]\ndocs = ["other", "mistral-embed"]\nother = "text-embedding-3-small"',
        "alias 'docs': 'text-embedding-3-small' and 'mistral-embed' are of different",
    ),
    "undeclared": (
        '[aliases]\ndocs = ["openai:new", "west:new"]',
        "alias 'docs': nobody declared 'openai:new', so nothing says that the vectors of "
        "'openai:new' and 'west:new' can be compared.",
    ),
    "the second undeclared": (
        '[aliases]\ndocs = ["text-embedding-3-small", "west:new"]',
        "alias 'docs': nobody declared 'west:new'",
    ),
    "nobody, nearly itself": (
        '[aliases]\nmistral-embedd = "mistral-embbed"\nmistral-embe = "mistral-embbed"',
        "no enabled provider serves 'mistral-embbed'. Did you mean 'mistral-embed'",
    ),
    "nobody": (
        '[aliases]\ndocs = "text-embeding-3-small"',
        "alias 'docs': no enabled provider serves 'text-embeding-3-small'. Did you mean "
        "'text-embedding-3-",
    ),
    "no provider": (
        '[aliases]\ndocs = "azure:text-embedding-3-small"',
        "no enabled provider serves 'azure:text-embedding-3-small'. No provider 'azure' is enabled "
        "here",
    ),
    "nothing": ("[aliases]\ndocs = []", "alias 'docs': it stands for nothing."),
    "empty": ('[aliases]\ndocs = ""', "alias 'docs': no enabled provider serves ''."),
    "itself": ('[aliases]\na = "a"', "alias 'a': it ends where it began, 'a' -> 'a'."),
    "a circle": (
        '[aliases]\na = "b"\nb = ["c"]\nc = "a"',
        "alias 'a': it ends where it began, 'a' -> 'b' -> 'c' -> 'a'.",
    ),
    "a model's id": (
        '[aliases]\nmistral-embed = "text-embedding-3-small"',
        "alias 'mistral-embed': a model has this id.",
    ),
    "auto": ('[aliases]\nauto = "mistral-embed"', "auto is a setting of its own: auto = NAME."),
    "a colon": (
        '[aliases]\n"openai:mine" = "mistral-embed"',
        "alias 'openai:mine': an alias is 1 to 256 printable characters without a colon",
    ),
    "no name": ('[aliases]\n"" = "mistral-embed"', "alias '': an alias is 1 to 256"),
    "a long name": (f'[aliases]\n{"a" * 257} = "mistral-embed"', "an alias is 1 to 256"),
    "control characters": ('[aliases]\n"a\\nb" = "mistral-embed"', r"alias 'a\nb': an alias is"),
    "an unknown model": (
        "[models.text-embeding-3-small]\nmin_cosine = 1",
        'gateway.toml: [models."text-embeding-3-small"]: no enabled provider serves this model. '
        "Did you mean",
    ),
    **{
        f"{setting} of others": (
            f"[models.{SMALL}]\n{setting} = {value}",
            f'[models."{SMALL}"]: {setting} names \'mistral\', which does not serve it: '
            "openai, west do.",
        )
        for setting, value in {
            "order": '["west", "mistral"]',
            "weights": "{ mistral = 1 }",
            "only": '["mistral"]',
            "reference": '"mistral"',
        }.items()
    },
    "only nobody": (f"[models.{SMALL}]\nonly = []", "only: list should have at least 1 item"),
    "weights of zero": (
        f"[models.{SMALL}]\nweights = {{ openai = 0, west = 0 }}",
        "weights leave nobody: one must be above 0.",
    ),
    "no weight of those pinned": (
        f'[models.{SMALL}]\nonly = ["west"]\nweights = {{ openai = 3, west = 0 }}',
        "weights leave nobody",
    ),
    "a weight below zero": (
        f"[models.{SMALL}]\nweights = {{ west = -1 }}",
        "weights.west: input should be greater than or equal to 0.",
    ),
    "a weight without end": (
        f"[models.{SMALL}]\nweights = {{ west = inf }}",
        "weights.west: input should be a finite number.",
    ),
    "a cosine of 0": (f"[models.{SMALL}]\nmin_cosine = 0", "min_cosine: input should be greater"),
    "a cosine above 1": (f"[models.{SMALL}]\nmin_cosine = 1.1", "min_cosine: input should be less"),
    "an unknown setting": (
        f"[models.{SMALL}]\nweight = {{}}",
        f'[models."{SMALL}"]: there is no setting weight. Did you mean weights?',
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused(load: Load, tmp_path: Path, case: str) -> None:
    """What could cross vector spaces, or names nobody, is refused with its file and both names."""
    sections, told = REFUSED[case]
    with pytest.raises(ConfigError) as refused:
        load(sections)
    said = str(refused.value)
    assert said.startswith(f"{tmp_path / 'gateway.toml'}: ")
    assert told in said
    assert "\n" not in said
    assert SECRET not in said


def test_auto_of_nobody(load: Load) -> None:
    """An `auto` that nobody has is refused with where it was set."""
    with pytest.raises(
        ConfigError, match=r"^environment: auto: no enabled provider serves 'text-smal'\."
    ):
        load(AUTO="text-smal")
    with pytest.raises(ConfigError, match=r"^environment: auto: it ends where it began, 'auto'"):
        load('[aliases]\na = "auto"', AUTO="a")


def test_what_is_said_of_a_model(load: Load, tmp_path: Path) -> None:
    """A section [models.ID] is what routing is told of the model, and of no other."""
    vectors = [[1, 0, 0, 0], [0, 0.5, 0, -2.5]]
    canaries = json.dumps({"texts": ["a", "b"], "vectors": vectors})
    (tmp_path / "canaries.json").write_text(canaries)
    among = load(
        """
        [models.docs-model]
        order = ["vllm"]
        weights = { ollama = 0, vllm = 2.5 }
        only = ["vllm", "ollama"]
        reference = "vllm"
        min_cosine = 0.98
        canaries = "canaries.json"
        """
    )
    said = among.policy("docs-model")
    assert (said.order, said.only) == (("vllm",), ("vllm", "ollama"))
    assert (said.weights, said.reference) == ({"ollama": 0, "vllm": 2.5}, "vllm")
    assert said.min_cosine == 0.98
    assert said.canaries
    assert said.canaries.texts == ("a", "b")
    assert said.canaries.vectors.dtype == np.float32
    assert said.canaries.vectors.tolist() == vectors
    digest = said.canaries.digest
    assert len(digest) == 12
    (tmp_path / "canaries.json").write_text(canaries + "\n")
    again = load(f'[models.docs-model]\ncanaries = "{tmp_path / "canaries.json"}"\n')
    other = again.policy("docs-model").canaries
    assert other
    assert other.digest != digest
    assert among.policy(SMALL) == ModelPolicy()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "No such file"),
        ("{", "truncated. It holds"),
        ('{"texts": ["a", "b"]}', "missing required field `vectors`"),
        ('{"texts": ["a", "b"], "vectors": [[1, 2, 3, 4]]}', "2 texts, but 1 vectors"),
        ('{"texts": ["a", "b"], "vectors": [[1, 2, 3, 4], [1, 2, 3]]}', "not all of one width"),
        ('{"texts": ["a", "b"], "vectors": [[], []]}', "not all of one width"),
        ('{"texts": ["a", "b"], "vectors": [[1, 2, 3, 4], [0, 0, 0, 0]]}', "a vector of zeros"),
        ('{"texts": ["a", "b"], "vectors": [[1, 2, 3, 4], [1, 2, 3, 1e39]]}', "not a finite"),
        ('{"texts": ["a", "b"], "vectors": [[1, 2, 3, 4], [1, 2, 3, NaN]]}', "malformed"),
        ('{"texts": ["a", ""], "vectors": [[1, 2, 3, 4], [1, 2, 3, 1]]}', "text 2 is empty"),
        ('{"texts": ["a"], "vectors": [[1, 2, 3, 4]]}', "it must have 2 to 64 texts, not 1"),
        (json.dumps({"texts": ["a"] * 65, "vectors": [[1]] * 65}), "2 to 64 texts"),
        ('{"texts": ["a", "b"], "vectors": [[1, 2], [3, 4]]}', "of 2 dimensions, but the model is"),
    ],
)
def test_wrong_canaries(load: Load, tmp_path: Path, content: str | None, told: str) -> None:
    """Canaries that no vectors can be compared with are refused at start."""
    if content is not None:
        (tmp_path / "canaries.json").write_text(content)
    with pytest.raises(ConfigError) as refused:
        load('[models.docs-model]\ncanaries = "canaries.json"\n')
    said = str(refused.value)
    assert f'{tmp_path / "gateway.toml"}: [models."docs-model"]: canaries' in said
    assert told in said
    assert "\n" not in said


@pytest.mark.parametrize("command", ["serve", "models list", "doctor"])
def test_refused_at_start(tmp_path: Path, command: str) -> None:
    """The gateway does not start with such names: one line, and exit status 1."""
    (tmp_path / "embedway.toml").write_text(
        f'{PROVIDERS}\n[aliases]\ndocs = ["openai:{SMALL}", "mistral-embed"]\n'
    )
    variables = {"EMBEDWAY_DATA_DIR": str(tmp_path / "data")}
    done = embedway(*command.split(), env=variables, cwd=tmp_path)
    assert done.returncode == 1
    said = done.stdout if command == "doctor" else done.stderr
    [line] = [each for each in said.splitlines() if "alias" in each]
    assert f"embedway.toml: alias 'docs': 'openai:{SMALL}' and 'mistral-embed' are of" in line
    assert "Traceback" not in done.stderr


def test_known_but_nobody_serves_it(load: Load) -> None:
    """A known model that no enabled provider serves is refused with the providers that do."""
    with pytest.raises(UnknownModel) as refused:
        resolve("voyage-3-large", load(""), param="model")
    assert refused.value.message == (
        "No provider enabled here serves the model 'voyage-3-large', and no alias has this name. "
        "Known providers of 'voyage-3-large': voyage. To see how to enable one: embedway providers "
        "list --all"
    )


def test_told_at_start(new_gateway: Callable[..., Gateway]) -> None:
    """`serve` says at start what `auto` and each alias stand for, and requests may use them."""
    gateway = new_gateway(auto="here")
    (gateway.folder / "embedway.toml").write_text(
        f'{PROVIDERS}\n[aliases]\nhere = "{LOCAL}"\nsmall = "{SMALL}"\n'
        f'docs = ["west:{SMALL}", "openai:{SMALL}"]\n'
    )
    gateway.start()
    said = gateway.log.read_text()
    assert f"auto       {LOCAL} (embedway)" in said
    assert f"here -> {LOCAL} (embedway)" in said
    assert f"small -> {SMALL} (openai, west)" in said
    assert f"docs -> west:{SMALL}, then openai:{SMALL} (west, openai)" in said
    assert gateway.embed(input="a", model="here").status_code == 200


def test_shown(tmp_path: Path) -> None:
    """`embedway config show` shows each alias with its names, and which models are spoken of."""
    (tmp_path / "embedway.toml").write_text(
        f'{PROVIDERS}\n[aliases]\na = "b"\nc = ["d", "e"]\n[models.f]\n[models.g]\n'
    )
    done = embedway("config", "show", "--json", env={}, cwd=tmp_path)
    rows = {row["setting"]: row["value"] for row in json.loads(done.stdout)}
    assert rows["aliases"] == "a -> b, c -> d, then e"
    assert rows["models"] == "f, g"
    assert SECRET not in done.stdout


def test_what_runs_here_by_any_name(tmp_path: Path) -> None:
    """Commands that need no provider know the aliases of what runs here, and refuse others."""
    (tmp_path / "embedway.toml").write_text(
        f'auto = "openai:{SMALL}"\n{PROVIDERS}\n[aliases]\nhere = "{LOCAL}"\nthere = "{SMALL}"\n'
    )
    pulled = embedway("models", "pull", "here", env={}, cwd=tmp_path)
    assert (pulled.returncode, "all-minilm-l6-v2" in pulled.stdout) == (0, True)
    for name in ("auto", "there", SMALL):
        refused = embedway("models", "pull", name, env={}, cwd=tmp_path)
        assert (refused.returncode, f"No model {name!r} runs here" in refused.stderr) == (1, True)
