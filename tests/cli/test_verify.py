"""`providers verify` finds what a provider does otherwise than its row and the catalog say."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from conftest import embedway
from test_cli import at_terminal
from test_protocols import MODELS, VARIABLES, account, base_url

from embedway.catalog.deployment import Deployment
from embedway.catalog.model import DeploymentSpec, Model
from embedway.cli.verification import Verification, VerificationFinding
from embedway.providers.provider_config import ProviderConfig
from embedway.providers.registry import ROWS
from embedway.testing import Upstream, UpstreamReply, space
from embedway.testing.misbehaviour import Misbehaviour
from embedway.testing.protocols import SPOKEN, ReplyEntry, UpstreamRequest, embedding
from embedway.testing.vectors import scaled, vector_of

KEY = "sk-right"
MODEL = "some-model"
WIDTHS = {"bedrock": 1024, "cohere": 1536, "foundry": 1536}
TRAINED = {"bedrock": 256, "cohere": 256, "foundry": 256}
LIMIT = 40
"""Tokens that a text may have."""

SETTINGS = """
local_servers = false
[providers.openai]
base_url = "{url}/openai/v1"
api_key = "sk-right"
[[providers.openai.models]]
id = "verified"
name = "some-model"
dimensions = 64
trained_dimensions = [32]
max_item_tokens = 40
normalised = true
price_per_mtok_usd = "0.1"
"""


def model_name(kind: str) -> str:
    return {"cohere": "embed-v4.0", "foundry": "embed-v4.0"}.get(kind) or MODELS.get(kind, MODEL)


def declared(kind: str, upstream: Upstream, folder: Path) -> ProviderConfig:
    row = ROWS[kind]
    variables = {name: value for name, value in VARIABLES.items() if name in row.variables}
    if "iam_url" in row.defaults:
        variables["iam_url"] = upstream.url
    key = str(account(upstream, folder)) if kind == "vertex" else KEY
    return ProviderConfig(
        name=kind, row=row, keys=[key], base_url=base_url(row, upstream), variables=variables
    )


def served(kind: str) -> Deployment:
    model = Model(
        id="verified",
        dimensions=WIDTHS.get(kind, 64),
        trained_dimensions=[TRAINED.get(kind, 32)],
        max_item_tokens=LIMIT,
        normalised=kind != "perplexity",  # whose vectors are int8
    )
    return Deployment(model=model, spec=DeploymentSpec(provider=kind, name=model_name(kind)))


def verified(kind: str, upstream: Upstream, folder: Path) -> dict[str, VerificationFinding]:
    """The findings of one provider, by check."""
    verification = Verification(declared(kind, upstream, folder), served(kind), timeout_s=30)
    return {each.check: each for each in asyncio.run(verification.run())}


@pytest.fixture(autouse=True)
def keeping(upstream: Upstream) -> None:
    """An upstream that keeps the promises of every row."""
    upstream.reset()
    upstream.purposes = {
        word: space(word) for row in ROWS.values() for word in row.fields.input_types.values()
    }


def admit(upstream: Upstream, kind: str) -> None:
    # What Google's library signs differs each time, so any token of it is taken.
    key = None if kind == "vertex" else KEY
    upstream.admit(key=key, model=model_name(kind), max_item_tokens=LIMIT)


@pytest.mark.parametrize("kind", [name for name in ROWS if name in SPOKEN])
def test_promises_that_are_kept(kind: str, upstream: Upstream, tmp_path: Path) -> None:
    """A provider of any kind that does what its row says differs in nothing."""
    admit(upstream, kind)
    found = verified(kind, upstream, tmp_path)
    assert not [each for each in found.values() if each.outcome == "differs"]
    assert found["width"].outcome == found["norm"].outcome == found["too long"].outcome == "ok"


def swapped(entries: list[ReplyEntry], _: UpstreamRequest) -> list[ReplyEntry]:
    return [
        msgspec.structs.replace(each, embedding=other.embedding)
        for each, other in zip(entries, entries[::-1], strict=True)
    ]


def neighbours(entries: list[ReplyEntry], asked: UpstreamRequest) -> list[ReplyEntry]:
    if len(entries) == 1:
        return entries
    return [
        msgspec.structs.replace(
            each, embedding=embedding(f"another {each.index}", asked, vector_of)
        )
        for each in entries
    ]


def only_where(asked_so: Callable[[UpstreamRequest], bool]) -> Misbehaviour:
    """Gives other vectors where something is asked for."""

    def entries(right: list[ReplyEntry], asked: UpstreamRequest) -> list[ReplyEntry]:
        if not asked_so(asked):
            return right
        wrong = embedding("something else", asked, vector_of)
        return [msgspec.structs.replace(each, embedding=wrong) for each in right]

    return Misbehaviour(entries=entries)


def full_width(entries: list[ReplyEntry], asked: UpstreamRequest) -> list[ReplyEntry]:
    if asked.dimensions is None:
        return entries
    full = msgspec.structs.replace(asked, dimensions=None)
    return [
        msgspec.structs.replace(each, embedding=embedding(item, full, vector_of))
        for each, item in zip(entries, asked.items, strict=True)
    ]


def same(entries: list[ReplyEntry], asked: UpstreamRequest) -> list[ReplyEntry]:
    return [
        msgspec.structs.replace(each, embedding=embedding("one", asked, vector_of))
        for each in entries
    ]


BROKEN: dict[str, tuple[str, Misbehaviour | str | None, str]] = {
    "width": ("openai", "long vectors", "65 dimensions, not 64"),
    "order": ("openai", Misbehaviour(entries=swapped), "each other's vector"),
    "tokens": ("openai", "usage absurd", "which cannot be; the estimate is 10"),
    "base64": ("openai", only_where(lambda asked: asked.form == "float"), "other vectors"),
    "dimensions": ("openai", Misbehaviour(entries=full_width), "64 dimensions, where 32"),
    "input types": (
        "voyage",
        only_where(lambda asked: asked.purpose != ""),
        "query and document get the same vectors",
    ),
}
"""The kind of provider, how it breaks what the check is about, and what is said of it."""


@pytest.mark.parametrize("check", BROKEN)
def test_promises_that_are_broken(check: str, upstream: Upstream, tmp_path: Path) -> None:
    """A provider that breaks one promise differs in this check."""
    kind, misbehaviour, said = BROKEN[check]
    admit(upstream, kind)
    upstream.always(misbehaviour)
    found = verified(kind, upstream, tmp_path)[check]
    assert found.outcome == "differs"
    assert said in found.detail


@pytest.mark.parametrize(
    ("misbehaviour", "said"),
    [
        (Misbehaviour(entries=neighbours), "other vectors in a batch than alone"),
        (Misbehaviour(entries=same), "two texts get the same vector"),
    ],
)
def test_batches(misbehaviour: Misbehaviour, said: str, upstream: Upstream, tmp_path: Path) -> None:
    """Vectors that depend on what else is in the batch, or on nothing, differ."""
    upstream.always(misbehaviour)
    found = verified("openai", upstream, tmp_path)["order"]
    assert (found.outcome, said in found.detail) == ("differs", True)


def test_lengths(upstream: Upstream, tmp_path: Path) -> None:
    """Vectors of another length than 1 differ where the catalog says that they have it."""
    upstream.vectors = scaled(vector_of, 21.7)
    found = verified("openai", upstream, tmp_path)["norm"]
    assert (found.outcome, found.detail) == ("differs", "vectors of length 21.7, not 1")


def test_a_start_that_is_none(upstream: Upstream, tmp_path: Path) -> None:
    """Fewer dimensions that are not the start of all differ, since this gateway shortens itself."""
    upstream.always(only_where(lambda asked: asked.dimensions is not None))
    found = verified("openai", upstream, tmp_path)["dimensions"]
    assert (found.outcome, "not the start of all 64" in found.detail) == ("differs", True)


def test_refusals_that_do_not_come(upstream: Upstream, tmp_path: Path) -> None:
    """A provider that answers everything differs; one's own server may take any key and name."""
    hosted = verified("voyage", upstream, tmp_path)
    own = verified("vllm", upstream, tmp_path)
    for check in ("wrong key", "unknown model"):
        assert (hosted[check].outcome, own[check].outcome) == ("differs", "ok")
    assert hosted["too long"].outcome == "differs"
    assert "told not to cut" in hosted["too long"].detail


def test_refusals_for_another_reason(upstream: Upstream, tmp_path: Path) -> None:
    """A refusal that is read as one of another kind differs, and says how it is read."""
    teapot = UpstreamReply(status=418, body=b"I'm a teapot")
    admit(upstream, "openai")
    upstream.always(Misbehaviour(reply=lambda _, reply: reply if reply.status == 200 else teapot))
    found = verified("openai", upstream, tmp_path)
    for check, kind in {
        "too long": "item_too_long", "wrong key": "credentials", "unknown model": "model",
    }.items():  # fmt: skip
        assert found[check].outcome == "differs"
        assert f"refused as request, not {kind}" in found[check].detail


def test_troubles_that_pass(upstream: Upstream, tmp_path: Path) -> None:
    """A rate limit says nothing of a row: what it keeps from being tried has not been tried."""
    upstream.script(None, None)
    upstream.always("429 of seconds")
    found = verified("openai", upstream, tmp_path)
    assert found["width"].outcome == "ok"
    for check in ("order", "base64", "dimensions", "too long", "wrong key", "unknown model"):
        assert (found[check].outcome, "rate limit" in found[check].detail) == ("not tried", True)


def test_what_is_not_tried(upstream: Upstream, tmp_path: Path) -> None:
    """What cannot be asked for, or would cost much, says why it has not been tried."""
    place = declared("together", upstream, tmp_path)
    unknown = Deployment(model=Model(id="m"), spec=DeploymentSpec(provider="together"))
    verification = Verification(place, unknown, timeout_s=30)
    found = {each.check: each for each in asyncio.run(verification.run())}
    untried = {name for name, each in found.items() if each.outcome == "not tried"}
    assert untried >= {"width", "norm", "base64", "dimensions", "input types", "too long"}
    long = msgspec.structs.replace(served("together").model, max_item_tokens=32_000)
    costly = Deployment(model=long, spec=unknown.spec)
    verification = Verification(place, costly, timeout_s=30)
    assert verification.tokens < 200
    [said] = [each for each in asyncio.run(verification.run()) if each.check == "too long"]
    assert "would cost too much" in said.detail


def run(folder: Path, upstream: Upstream, *arguments: str) -> tuple[int, str, str]:
    (folder / "embedway.toml").write_text(SETTINGS.format(url=upstream.url))
    done = embedway("providers", "verify", *arguments, env={}, cwd=folder)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


def test_command(upstream: Upstream, tmp_path: Path) -> None:
    """The command says the cost first, prints table or JSON, and exits with 1 for a difference."""
    upstream.admit(key=KEY, model=MODEL, max_item_tokens=LIMIT)
    status, printed, said = run(tmp_path, upstream, "openai", "--model", "verified", "--yes")
    assert status == 0, printed
    assert "openai will bill at most about" in said
    assert "USD" in said
    assert "two texts get the same vectors in a batch as alone" in printed
    upstream.vectors = scaled(vector_of, 2)
    status, printed, _ = run(tmp_path, upstream, "openai", "--model", "verified", "--json")
    found = {each["check"]: each for each in json.loads(printed)}
    assert (status, found["norm"]["outcome"], found["order"]["outcome"]) == (1, "differs", "ok")
    assert KEY not in printed


def test_asking_first(upstream: Upstream, tmp_path: Path) -> None:
    """At a terminal the cost comes first, and nothing is sent unless a person agrees."""
    settings = tmp_path / "embedway.toml"
    settings.write_text(SETTINGS.format(url=upstream.url))
    env = {"EMBEDWAY_CONFIG": str(settings)}
    command = ("providers", "verify", "openai", "--model", "verified")
    said = at_terminal(*command, env=env, until="[y/N]", typed=b"n\n")
    assert "openai will bill at most about" in " ".join(said.split())
    assert "Aborted" in said
    assert upstream.calls == []


def test_command_that_cannot_begin(upstream: Upstream, tmp_path: Path) -> None:
    """Where not even a short text is embedded, or nobody is named, the command says why."""
    upstream.always("401")
    status, printed, said = run(tmp_path, upstream, "openai", "--model", "verified", "--yes")
    assert (status, printed) == (1, "")
    assert "it refuses the key (HTTP 401)" in said
    status, _, said = run(tmp_path, upstream, "nobody")
    assert status == 1
    assert "Provider 'nobody' is not enabled. Enabled: openai." in said


def test_a_made_up_key_goes_where_the_real_one_goes() -> None:
    """A provider whose address depends on the key is asked at that address with a wrong key too."""
    provider = ProviderConfig(name="voyage", row=ROWS["voyage"], keys=["al-right"])
    asked: list[str] = []

    class Watched(Verification):
        async def _expect_refusal(
            self, kind: object, *, provider_config: ProviderConfig | None = None, **_: object
        ):
            asked.append((provider_config or self._provider_config).url)
            return "ok", ""

    verification = Watched(provider, served("voyage"), timeout_s=1)
    asyncio.run(verification._wrong_key())
    assert asked == [provider.url] == ["https://ai.mongodb.com/v1"]
