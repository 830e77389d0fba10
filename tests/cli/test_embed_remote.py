"""`embed` and `models pull` where `auto` is a model that a provider runs."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import embedway

from embedway.testing import Upstream
from embedway.testing.vectors import vector_of

SETTINGS = """
auto = "acme:m"
local_servers = false

[providers.acme]
kind = "openai"
api_key = "k"
base_url = "{url}/openai/v1"
catalog = false
[[providers.acme.models]]
id = "m"
dimensions = {dimensions}
price_per_mtok_usd = "0.1"
{more}
"""


@pytest.fixture
def folder(tmp_path: Path, upstream: Upstream) -> Path:
    """A folder whose `embedway.toml` pins `auto` to a provider's model; there is no database."""
    upstream.reset()
    return configured(tmp_path, upstream)


def configured(folder: Path, upstream: Upstream, *, dimensions: int = 64, more: str = "") -> Path:
    text = SETTINGS.format(url=upstream.url, dimensions=dimensions, more=more)
    (folder / "embedway.toml").write_text(text)
    return folder


def run(folder: Path, *arguments: str, status: int = 0, **options) -> tuple[str, str]:
    """What a command prints and says, in that folder."""
    env = {"EMBEDWAY_DATA_DIR": str(folder / "data")}
    done = embedway(*arguments, env=env, cwd=folder, **options)
    assert done.returncode == status, done.stderr
    return done.stdout, done.stderr


def test_vectors_of_the_provider(folder: Path, upstream: Upstream) -> None:
    """`embed` asks the provider of `auto`, says so, and needs neither a server nor a database."""
    printed, said = run(folder, "embed", "one", "two")
    rows = [json.loads(line) for line in printed.splitlines()]
    assert [row["text"] for row in rows] == ["one", "two"]
    for row in rows:
        assert np.allclose(row["embedding"], vector_of(row["text"], 64), atol=1e-6)
    assert "acme:m" in said
    assert [call.body["input"] for call in upstream.calls] == [["one", "two"]]
    assert not (folder / "data").exists()


def test_many_texts_in_a_file(tmp_path: Path, upstream: Upstream) -> None:
    """A file of texts is cut into calls that the provider takes, and order is kept."""
    upstream.reset()
    configured(tmp_path, upstream, more="max_items = 100")
    texts = [f"text {number}" for number in range(600)]
    (tmp_path / "texts.txt").write_text("\n".join(texts))
    run(tmp_path, "embed", "--file", "texts.txt", "--output", "vectors.npy")
    vectors = np.load(tmp_path / "vectors.npy")
    assert np.allclose(vectors, [vector_of(text, 64) for text in texts], atol=1e-6)
    assert max(len(call.body["input"]) for call in upstream.calls) == 100


def test_more_tokens_than_a_request_may_have(tmp_path: Path, upstream: Upstream) -> None:
    """Texts that are too many for one request of the API are sent as several."""
    upstream.reset()
    configured(tmp_path, upstream, more='tokenizer = "cl100k_base"')
    (tmp_path / "texts.txt").write_text("word " * 8_000 + "\n" + ("word " * 8_000 + "\n") * 39)
    printed, _ = run(tmp_path, "embed", "--file", "texts.txt")
    assert [json.loads(line)["index"] for line in printed.splitlines()] == list(range(40))


def test_a_model_that_nobody_declared(folder: Path, upstream: Upstream) -> None:
    """The width of a file is that of the first answer where nobody declared one."""
    run(folder, "embed", "a", "b", "--model", "acme:other", "--output", "vectors.npy")
    assert np.load(folder / "vectors.npy").shape == (2, 64)
    assert upstream.calls[0].body["model"] == "other"


def test_what_the_built_in_model_gives(folder: Path, upstream: Upstream, minilm: object) -> None:
    """The built-in model stays there by its name, and asks nobody."""
    printed, said = run(folder, "embed", "one", "--model", "all-minilm-l6-v2")
    assert len(json.loads(printed)["embedding"]) == 384
    assert said == ""
    assert not upstream.calls


@pytest.mark.parametrize(
    ("misbehaviour", "told"),
    [
        ("401", "acme: it refuses the key (HTTP 401). The key is from embedway.toml."),
        ("too few vectors", "acme: malformed"),
    ],
)
def test_a_provider_that_fails(
    folder: Path, upstream: Upstream, misbehaviour: str, told: str
) -> None:
    """What a provider refuses is told in words, and no file is left."""
    upstream.always(misbehaviour)
    printed, said = run(folder, "embed", "one", "--output", "vectors.npy", status=1)
    assert printed == ""
    assert told in said
    assert "Traceback" not in said
    assert [each.name for each in folder.iterdir()] == ["embedway.toml"]


def test_a_text_that_is_too_long(tmp_path: Path, upstream: Upstream) -> None:
    """A text with more tokens than the model takes is named, and nothing is sent."""
    upstream.reset()
    configured(tmp_path, upstream, more='max_item_tokens = 5\ntokenizer = "cl100k_base"')
    _, said = run(tmp_path, "embed", "one", "a b c d e f", status=1)
    assert "Text 2 has 6 tokens, more than the 5 that m takes" in said
    assert not upstream.calls


def test_a_name_that_nobody_has(folder: Path) -> None:
    """An unknown model is refused with the value and where names are listed."""
    _, said = run(folder, "embed", "a", "--model", "gpt", status=1)
    assert "The model 'gpt' does not exist" in said
    assert "embedway models list" in said


def test_pull(folder: Path, minilm: object) -> None:
    """`models pull` fetches what runs here, whatever `auto` is; a remote name has no weights."""
    assert "The weights of all-minilm-l6-v2 are in" in run(folder, "models", "pull")[0]
    for name in ("auto", "acme:m"):
        _, said = run(folder, "models", "pull", name, status=1)
        assert f"No model {name!r} runs here" in said
        assert "embedway models pull" in said
