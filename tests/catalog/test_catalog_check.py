"""What cannot be right in a catalog is found, each kind of it, and the packaged one has none."""

import json
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest
from conftest import embedway

from embedway.catalog import catalog
from embedway.catalog.catalog import LOCAL
from embedway.catalog.check import CatalogFinding, check_catalog
from embedway.catalog.deployment import Deployment
from embedway.catalog.model import DeploymentSpec, Model
from embedway.config import providers
from embedway.providers.provider_config import ProviderConfig
from embedway.providers.registry import ROWS

TODAY = date(2026, 9, 1)
READ = date(2026, 8, 1)
KINDS = [ProviderConfig(name=row.name, row=row) for row in ROWS.values() if not row.own_server]
PACKAGED = catalog.load_catalog(
    eu_native=False, offers=providers.provider_offers(KINDS)
).deployments()
OWN = {LOCAL, "rack"}


def model(id: str = "m", **facts: object) -> Model:
    """A model of which all is known."""
    known = {"dimensions": 1024, "max_item_tokens": 512, "licence": "MIT"}
    return Model(id=id, **(known | facts))


def served(provider: str = "acme", *, of: Model | None = None, **facts: object) -> Deployment:
    """A deployment of which all is known."""
    known = {"price_per_mtok_usd": Decimal("0.1"), "price_date": READ}
    return Deployment(of or model(), DeploymentSpec(provider, **(known | facts)))


def found(*all: Deployment) -> list[CatalogFinding]:
    return check_catalog(all, own=OWN, today=TODAY)


def told(*all: Deployment) -> list[tuple[str, str]]:
    """Level and place of each finding."""
    return [(each.level, each.where) for each in found(*all)]


def test_a_good_catalog() -> None:
    """Of what is right, nothing is said."""
    good = served(of=model(trained_dimensions=[256, 1024]), eu_native=True, hq_country="FR")
    assert not found(good, served("other", of=good.model), served("rack", of=model("n")))


def test_the_packaged_catalog() -> None:
    """What comes with the gateway had no errors on the day of its latest price."""
    latest = max(each.spec.price_date or READ for each in PACKAGED)
    all = check_catalog(PACKAGED, own={LOCAL}, today=latest)
    assert [each for each in all if each.level == "error"] == []
    assert {each.where for each in all if each.level == "warning"} == {
        "voyage:voyage-lite-01",
        *(f"cloudflare:bge-{size}-en-v1.5" for size in ("large", "base", "small")),
    }


def test_the_known_bad_price() -> None:
    """A price of 100 USD, which a public list gives for a small model of Cohere's, is found."""
    bad = served("cohere", of=model("light"), price_per_mtok_usd=Decimal(100))
    [finding] = found(bad)
    assert (finding.level, finding.where) == ("error", "cohere:light")
    assert "100 USD" in finding.what


@pytest.mark.parametrize("factor", [Decimal(1000), Decimal("0.001")])
def test_a_slip_of_units_is_always_found(factor: Decimal) -> None:
    """Any price of the packaged catalog is found if it is off by a thousand, either way."""
    prices = {each.spec.price_per_mtok_usd for each in PACKAGED} - {None, Decimal(0)}
    assert len(prices) > 10
    for price in prices:
        assert told(served(price_per_mtok_usd=price * factor)) == [("error", "acme:m")], price


def test_a_price_unlike_all_others() -> None:
    """A price that could be is found if the same model costs a small part of it elsewhere."""
    slip = served("slip", price_per_mtok_usd=Decimal("1.9"))
    cheap = [served(name, price_per_mtok_usd=Decimal("0.002")) for name in ("a", "b")]
    assert ("error", "slip:m") in told(slip, *cheap)
    assert not told(slip, served("dear", price_per_mtok_usd=Decimal("0.02")))
    out = served("out", price_per_mtok_usd=Decimal(100))
    assert told(out, *cheap) == [("error", "out:m")]


def test_what_is_free() -> None:
    """A price of zero at a provider is found, unless somebody read it; at one's own it is right."""
    free = Decimal(0)
    assert told(served(price_per_mtok_usd=free, price_date=None)) == [("error", "acme:m")]
    assert not told(served(price_per_mtok_usd=free))
    assert not told(served("rack", price_per_mtok_usd=free, price_date=None))


@pytest.mark.parametrize(
    ("read", "level"),
    [
        (None, "warning"),
        (date(2025, 8, 31), "warning"),
        (date(2026, 9, 2), "error"),
        (date(2025, 9, 2), None),
        (TODAY, None),
    ],
)
def test_dates_of_prices(read: date | None, level: str | None) -> None:
    """A price without a date, or older than a year, is a warning; one to come is an error."""
    assert told(served(price_date=read)) == ([(level, "acme:m")] if level else [])


@pytest.mark.parametrize(
    ("facts", "level"),
    [
        ({"dimensions": None}, "warning"),
        ({"trained_dimensions": [256, 2048]}, "error"),
        ({"trained_dimensions": [512, 256]}, "error"),
        ({"trained_dimensions": [256, 256]}, "error"),
        ({"native_dimensions": 512}, "error"),
        ({"trained_dimensions": [256, 2048], "native_dimensions": 2048}, None),
        ({"trained_dimensions": "any"}, None),
        ({"max_item_tokens": None}, "warning"),
        ({"max_item_tokens": 8}, "error"),
        ({"max_item_tokens": 512_000}, "error"),
        ({"max_item_tokens": 131_072}, None),
        ({"licence": "unknown"}, "info"),
    ],
)
def test_facts_of_a_model(facts: dict[str, object], level: str | None) -> None:
    """Widths and lengths that cannot be are errors, unknown ones warnings; each is told once."""
    bad = model(**facts)
    all = told(served(of=bad), served("other", of=bad))
    assert all == ([(level, "acme:m")] if level else [])


def test_claims_to_share_a_space() -> None:
    """A claim names a model that somebody has, and that makes no claim itself."""
    root, one = served(of=model("root")), served(of=model("one", same_space_as="root"))
    assert not found(root, one)
    two = served(of=model("two", same_space_as="one"))
    assert told(root, one, two) == [("error", "acme:two")]
    assert told(one) == [("error", "acme:one")]
    assert told(served(of=model(same_space_as="m"))) == [("error", "acme:m")]


@pytest.mark.parametrize(
    ("country", "level"), [("US", "error"), ("CH", "error"), ("", "warning"), ("IE", None)]
)
def test_who_is_of_the_eu(country: str, level: str | None) -> None:
    """Who is said to be of the EU has headquarters there."""
    expected = [(level, "acme:m")] if level else []
    assert told(served(eu_native=True, hq_country=country)) == expected
    assert not told(served(eu_native=False, hq_country=country))


@pytest.mark.parametrize(
    ("other", "clash"),
    [
        ({"dimensions": 768}, True),
        ({"pooling": "mean"}, True),
        ({"normalised": False}, True),
        ({"description": "Another."}, False),
    ],
)
def test_one_id_is_one_space(other: dict[str, object], clash: bool) -> None:
    """Two deployments of one id that differ in what makes a space are found, nothing else of it."""
    here = served(of=model(pooling="cls", normalised=True))
    there = served("rack", of=model(**({"pooling": "cls", "normalised": True} | other)))
    assert told(here, there) == ([("error", "rack:m")] if clash else [])


def test_names() -> None:
    """A name that means two models at one provider, or is never asked for there, is found."""
    assert told(served(), served()) == [("error", "acme:m")]
    same = served(of=model("n"), name="m")
    assert told(served(), same) == [("error", "acme:n")]
    assert not told(served(), served("other", of=model("n"), name="m"))
    thief = served("rack", of=model("acme:m"))
    assert told(served(), thief) == [("error", "rack:acme:m")]
    assert not told(served("rack", of=model("all-minilm:latest")))


def test_the_id_of_a_model_that_runs_here() -> None:
    """A server with a model of the same id as one that runs here is told of."""
    [here] = [each for each in PACKAGED if each.provider == LOCAL]
    bare = Model(
        **{
            name: getattr(here.model, name)
            for name in ("id", "dimensions", "max_item_tokens", "licence", "pooling", "normalised")
        }
    )
    assert told(here, served("rack", of=bare)) == [("warning", f"rack:{here.model.id}")]


def test_the_worst_comes_first() -> None:
    """Errors are told before warnings, those before what is only unknown."""
    bad = model(licence="unknown", dimensions=None, max_item_tokens=1)
    assert [level for level, _ in told(served(of=bad))] == ["error", "warning", "info"]


def checked(folder: Path, *arguments: str, toml: str = "") -> tuple[int, dict[str, list[str]], str]:
    """Exit status, findings as level by place, and what was said beside them."""
    (folder / "embedway.toml").write_text(toml)
    done = embedway("catalog", "check", "--json", *arguments, env={}, cwd=folder)
    assert "Traceback" not in done.stderr
    places: dict[str, list[str]] = {}
    for row in json.loads(done.stdout or "[]"):
        places.setdefault(row["where"], []).append(row["level"])
    return done.returncode, places, done.stderr


def test_command(tmp_path: Path) -> None:
    """The packaged catalog passes; what embedway.toml adds is checked with it, and fails it."""
    status, places, said = checked(tmp_path)
    assert (status, places["voyage:voyage-lite-01"]) == (0, ["warning"])
    assert f"Checked {len(PACKAGED)} deployments: error 0" in said
    toml = """
        [providers.west]
        kind = "openai"
        api_key = "x"
        base_url = "https://west.example/v1"
        [[providers.west.models]]
        id = "bge-m3"
        dimensions = 768
        price_per_mtok_usd = "12"
        [providers.rack]
        kind = "vllm"
        base_url = "http://127.0.0.1:1/v1"
        [[providers.rack.models]]
        id = "mine"
        dimensions = 8
        max_item_tokens = 100
        price_per_mtok_usd = "12"
    """
    status, places, _ = checked(tmp_path, toml=toml)
    assert status == 1
    assert sorted(places["west:bge-m3"]) == ["error", "error", "warning"]
    assert places["rack:mine"] == ["info"]


def test_command_with_files(tmp_path: Path) -> None:
    """Files of the catalog are checked alone; one that cannot be read says where and why."""
    file = tmp_path / "mine.toml"
    at = "prices = 2026-08-01\n[[models]]\nid = 'm'\nlicence = 'MIT'\ndimensions = 8\n"
    at += "max_item_tokens = 100\n"
    file.write_text(f"{at}deployments = [{{ provider='cohere', price_per_mtok_usd='100' }}]")
    status, places, said = checked(tmp_path, str(file))
    assert (status, places) == (1, {"cohere:m": ["error"]})
    assert "Checked 1 deployment:" in said
    for wrong, why in (
        ("models = 3", "Expected `array`"),
        ("[[models]", str(file)),
        (f"{at}deployments = [{{ provider = 'cohre' }}]", "'cohre'"),
    ):
        file.write_text(wrong)
        status, _, said = checked(tmp_path, str(file))
        assert (status, why in said) == (1, True), said
    assert checked(tmp_path, str(tmp_path / "missing.toml"))[0] == 1
