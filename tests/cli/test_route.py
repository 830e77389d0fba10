"""`embedway route` and `embedway models show`: what would be done, told without doing it."""

import json
import subprocess
from collections.abc import Callable, Iterator

import pytest
from conftest import Gateway, Minilm, free_port

from embedway.testing import Upstream

TOML = """
[aliases]
pinned = "near:shared"

[models.shared]
reference = "near"

[providers.near]
kind = "together"
base_url = "{url}/together/v1"
api_key = "t"
eu_native = true
[[providers.near.models]]
id = "shared"
dimensions = 64
trained_dimensions = [16]
price_per_mtok_usd = "2"
price_date = 2026-02-03
quantisation = "bf16"
licence = "MIT"
pooling = "cls"
normalised = true
prompts = {{ query = "query: " }}
region = "fr-par"
max_items = 2

[providers.cheap]
kind = "deepinfra"
base_url = "{url}/deepinfra/v1"
api_key = "d"
[[providers.cheap.models]]
id = "shared"
dimensions = 64
trained_dimensions = [16]
pooling = "cls"
normalised = true
price_per_mtok_usd = "1"
"""
MADE_HERE = "No gateway was asked"


@pytest.fixture(scope="module")
def several(
    upstream: Upstream, minilm: Minilm, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """A gateway that has one model from two providers, both proven to be of one space."""
    running = Gateway(tmp_path_factory.mktemp("route"), canaries=True)
    (running.folder / "embedway.toml").write_text(TOML.format(url=upstream.url))
    running.start()
    for name in ("near:shared", "cheap:shared"):
        assert running.embed(model=name, input="a").status_code == 200
    upstream.reset()
    yield running
    running.kill()


@pytest.fixture(params=["running", "made here"])
def ask(
    request: pytest.FixtureRequest, several: Gateway, upstream: Upstream
) -> Iterator[Callable[..., subprocess.CompletedProcess]]:
    """Runs a command that asks the running gateway, or that makes one on the same folder."""
    running = request.param == "running"
    several.env.pop("EMBEDWAY_API_KEY", None)
    if running:
        several.env["EMBEDWAY_API_KEY"] = several.key

    def run(*arguments: str, **options) -> subprocess.CompletedProcess:
        done = several.cli(*arguments, **options)
        assert "Traceback" not in done.stderr
        told = done.stderr.splitlines()[0]
        assert (several.url in told and MADE_HERE not in told) == running, done.stderr
        return done

    upstream.reset()
    yield run
    several.env.pop("EMBEDWAY_API_KEY", None)
    assert upstream.calls == []


def parsed(done: subprocess.CompletedProcess) -> dict:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def ids(entries: list[dict]) -> list[str]:
    return [each["id"] for each in entries]


def test_route(ask: Callable[..., subprocess.CompletedProcess]) -> None:
    """The plan names who would be asked, in order, at what price; nobody is asked."""
    told = parsed(ask("route", "shared", "a", "b", "c", "--preference=cost", "--json"))
    assert told["space"] == "shared@near/cls-l2/prompt-none/64"
    assert (told["items"], told["preference"]) == (3, "cost")
    assert ids(told["candidates"]) == ["cheap:shared", "near:shared"]
    cheap, near = told["candidates"]
    assert [each["price_per_mtok_usd"] for each in told["candidates"]] == [1, 2]
    assert float(near["cost_usd"]) == 2 * float(cheap["cost_usd"]) > 0
    assert (cheap["calls"], near["calls"]) == (1, 2)
    assert cheap["reason"].startswith("cheapest")
    shown = ask("route", "shared", "--preference", "cost").stdout
    assert shown.index("cheap:shared") < shown.index("near:shared")
    assert cheap["reason"] in shown


@pytest.mark.parametrize(
    ("option", "left", "removed_by"),
    [
        (["--eu-native"], ["near:shared"], "eu_native"),
        (["--no-allow-quantization"], ["near:shared"], "allow_quantization"),
        (["--allowed-provider=cheap"], ["cheap:shared"], "allowed_providers"),
        (
            ["--allowed-provider=cheap", "--allowed-provider=near"],
            ["cheap:shared", "near:shared"],
            None,
        ),
    ],
)
def test_filters(
    ask: Callable[..., subprocess.CompletedProcess],
    option: list[str],
    left: list[str],
    removed_by: str | None,
) -> None:
    """Each option is the request's field of that name; who is left out is told with the filter."""
    told = parsed(ask("route", "shared", *option, "--preference=cost", "--json"))
    assert ids(told["candidates"]) == left
    assert {each["filter"] for each in told["removed"]} == ({removed_by} - {None})


def test_other_fields(ask: Callable[..., subprocess.CompletedProcess]) -> None:
    """Dimensions and fallbacks count too: the space says how wide, the fallbacks come last."""
    told = parsed(
        ask("route", "cheap:shared", "--dimensions=16", "--fallback=near:shared", "--json")
    )
    assert told["space"].endswith("/16")
    assert ids(told["candidates"]) == ["cheap:shared", "near:shared"]


def test_refusals(ask: Callable[..., subprocess.CompletedProcess]) -> None:
    """What the gateway would refuse is refused here in its words, with status 1."""
    for arguments, words in (
        (["shared", "--zero-data-retention"], "'zdr' removes"),
        (["shared", "--dimensions=63"], "'dimensions' is 63"),
        (["sharde"], "Did you mean 'shared'"),
        (["shared", "--fallback=auto"], "The fallback 'auto'"),
    ):
        done = ask("route", *arguments)
        assert (done.returncode, done.stdout) == (1, "")
        assert words in done.stderr


def test_texts(several: Gateway, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Texts are arguments, a file's lines or standard input; without any there is a short one."""
    several.env["EMBEDWAY_API_KEY"] = several.key
    file = tmp_path_factory.mktemp("texts") / "texts.txt"
    file.write_text("one\ntwo\n")
    for arguments, options, items in (
        ([], {}, 1),
        (["auto", "one", "two", "three"], {}, 3),
        (["--file", str(file)], {}, 2),
        (["-f", "-"], {"input": "one\ntwo\nthree\nfour\n"}, 4),
    ):
        told = parsed(several.cli("route", *arguments, "--json", **options))
        assert (told["model"], told["items"]) == ("auto", items)
        assert told["tokens"] == told["candidates"][0]["tokens"] > items
    for wrong in (["auto", "x", "--file", str(file)], ["--file", f"{file}.none"]):
        done = several.cli("route", *wrong)
        assert (done.returncode, done.stdout) == (2, "")
        assert "Traceback" not in done.stderr
    del several.env["EMBEDWAY_API_KEY"]


def test_a_running_gateway_knows_more(
    several: Gateway, upstream: Upstream, new_gateway: Callable[..., Gateway]
) -> None:
    """Whom the running gateway has rested is left out of its plan, not of one that is made here."""
    gateway = new_gateway(canaries=True)
    (gateway.folder / "embedway.toml").write_text(TOML.format(url=upstream.url))
    gateway.start()
    upstream.always("429 of seconds")
    assert gateway.embed(model="near:shared", input="a").status_code == 429
    upstream.reset()
    assert gateway.cli("route", "near:shared").returncode == 0
    gateway.env["EMBEDWAY_API_KEY"] = gateway.key
    refused = gateway.cli("route", "near:shared")
    assert refused.returncode == 1
    assert "limits the rate" in refused.stderr
    shown = gateway.cli("models", "show", "near:shared")
    assert shown.returncode == 0
    assert "limited" in shown.stdout
    assert "limits the rate" in shown.stderr


def test_whom_to_ask(several: Gateway) -> None:
    """--url names another gateway, and wants one there and a key; without it, one is made here."""
    several.env.pop("EMBEDWAY_API_KEY", None)
    nobody = f"http://127.0.0.1:{free_port()}"
    assert "EMBEDWAY_API_KEY" in several.cli("route", "--url", several.url).stderr
    environment = several.env | {"EMBEDWAY_API_KEY": several.key}
    several.env, usual = environment, several.env
    try:
        for url, words, status in ((nobody, nobody, 1), ("file:///etc/passwd", "no address", 2)):
            done = several.cli("route", "--url", url)
            assert (done.returncode, done.stdout) == (status, "")
            assert words in done.stderr
        for url in (several.url, f"{several.url}/v1/"):
            assert parsed(several.cli("route", "--url", url, "--json"))["model"] == "auto"
        environment["EMBEDWAY_API_KEY"] = several.key[:-1]
        wrong = several.cli("route")
        assert (wrong.returncode, wrong.stdout) == (1, "")
        assert "mistyped" in wrong.stderr
        environment |= {"EMBEDWAY_API_KEY": several.key, "EMBEDWAY_PORT": str(free_port())}
        alone = several.cli("route", "--json")
        assert parsed(alone)["model"] == "auto"
        assert MADE_HERE in alone.stderr
    finally:
        several.env = usual


def test_show(ask: Callable[..., subprocess.CompletedProcess]) -> None:
    """A model's facts, and a row for each who serves it: place, price, proof and reason."""
    shown = ask("models", "show", "shared", "--preference=cost").stdout
    for fact in ("MIT", "64; also 16", "cls, normalised", "query: 'query: '", "pinned"):
        assert fact in shown
    assert "shared@near/cls-l2/prompt-none/64" in shown
    cheap, near = (line.split() for line in shown.splitlines() if "healthy" in line)
    assert (cheap[:2], near[:2]) == (["1", "cheap"], ["2", "near"])
    assert "proven" in cheap
    assert "reference" in near
    assert {"(2026-02-03)", "fr-par", "bf16"} <= set(near)


def test_show_for_programs(ask: Callable[..., subprocess.CompletedProcess]) -> None:
    """With --json each deployment is its card with its place; any name leads to the model."""
    told = parsed(ask("models", "show", "pinned", "--json"))
    assert told["name"] == "pinned"
    near, cheap = told["deployments"]
    assert (near["id"], near["order"], near["aliases"]) == ("near:shared", 1, ["pinned"])
    assert (cheap["id"], cheap["order"]) == ("cheap:shared", None)
    assert "cheap:shared" in cheap["reason"]
    assert [near["proof"], cheap["proof"]] == ["reference", "proven"]


def test_show_in_order(ask: Callable[..., subprocess.CompletedProcess]) -> None:
    """A deployment that is never tried comes after those that are, wherever the catalog has it."""
    told = parsed(ask("models", "show", "cheap:shared", "--json"))
    found = [(each["id"], each["order"]) for each in told["deployments"]]
    assert found == [("cheap:shared", 1), ("near:shared", None)]


def test_show_what_nobody_declared(ask: Callable[..., subprocess.CompletedProcess]) -> None:
    """Of a provider's undeclared model is told that nothing is known; of no model, near names."""
    shown = ask("models", "show", "near:what-is-this")
    assert shown.returncode == 0
    assert "nobody declared it" in shown.stdout
    unknown = ask("models", "show", "sharde")
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert "Did you mean 'shared'" in unknown.stderr
