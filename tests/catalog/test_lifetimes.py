"""What a provider retires is refused from that day on, and announced before."""

import json
from datetime import UTC, date, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx
import pytest
from conftest import embedway
from in_process import settled
from test_routing_holes import WIDTH, Clock, World, in_a_loop, space_of, upstreams, world

from embedway.catalog import catalog
from embedway.catalog.check import check_catalog
from embedway.catalog.deployment import Deployment
from embedway.catalog.lifetimes import ModelLifetimes, is_retired
from embedway.catalog.model import DeploymentSpec, Model
from embedway.config import providers
from embedway.core import clock as wall
from embedway.providers.provider_config import ProviderConfig
from embedway.providers.registry import ROWS
from embedway.wire.lifetime_headers import lifetime_headers

__all__ = ["upstreams", "world"]

RETIRES = date(2031, 3, 1)
ENDS = (
    f"dimensions = {WIDTH}",
    f"retires = {RETIRES}",
    'successor = "n"',
    "deprecated = 2031-01-15",
)


def at(day: date, *, before_ms: int = 0) -> Clock:
    """A clock that stands at the beginning of a day, or so long before."""
    clock = Clock()
    clock.ms = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() * 1000)
    clock.ms -= before_ms
    return clock


def error(reply: httpx.Response) -> str:
    """The message of a refusal of a model that is gone."""
    assert reply.status_code == 404, reply.text
    told = reply.json()["error"]
    assert (told["code"], told["param"]) == ("model_not_found", "model")
    return told["message"]


@in_a_loop
async def test_a_deployment_retires_while_the_gateway_runs(world: World) -> None:
    """Its last millisecond it is asked; the next it is refused, and others of its space go on."""
    names = '[aliases]\none = "a:m"\nboth = ["a:m", "b:m"]'
    clock = at(RETIRES, before_ms=1)
    async with world.gateway(
        names, world.provider("a", *ENDS), world.provider("b"), clock=clock
    ) as ask:
        await ask.proven("a:m", "b:m")
        before = await ask("a:m", "before")
        clock.ms += 1
        told = error(await ask("a:m", "a late one"))
        assert told == (
            "a retired the model 'm' on 2031-03-01. Its successor there is 'n'; vectors of the two "
            "cannot be compared, so embed all texts anew."
        )
        assert error(await ask("one")).startswith("'one' means a:m: a retired the model 'm'")
        for name in ("m", "both"):
            after = await ask(name, f"after by {name}")
            assert after.headers["x-embedway-provider"] == "b"
            assert space_of(after) == space_of(before)
            assert "sunset" not in after.headers
        dry = (await ask("m", dry=True)).json()
        assert [(each["id"], each["filter"]) for each in dry["removed"]] == [("a:m", "retired")]
    assert not world.received("a late one")


@in_a_loop
async def test_who_is_retired_defines_no_space(world: World) -> None:
    """A gateway that starts after the retirement takes the next deployment for the reference."""
    async with world.gateway(
        world.provider("a", *ENDS), world.provider("b"), world.provider("c"), clock=at(RETIRES)
    ) as ask:
        await ask.proven("m", "c:m")
        assert space_of(await ask("c:m")).startswith("m@b/")
    assert not world.a.calls


@in_a_loop
async def test_nobody_asked_a_model_before_it_retired(world: World) -> None:
    """Where nothing defined the space before the day, the next deployment does, with no restart."""
    clock = at(RETIRES, before_ms=1)
    async with world.gateway(world.provider("a", *ENDS), world.provider("b"), clock=clock) as ask:
        clock.ms += 1
        assert space_of(await ask("m")).startswith("m@b/")
    assert not world.a.calls


@in_a_loop
async def test_without_canaries_nobody_stands_in(world: World) -> None:
    """Nothing proves another's vectors alike, so the bare id is refused and names the others."""
    async with world.gateway(
        "canaries = false", world.provider("a", *ENDS), world.provider("b"), clock=at(RETIRES)
    ) as ask:
        refused = await ask("m")
        assert refused.status_code == 400
        told = refused.json()["error"]["message"]
        assert "a:m (a retired the model 'm' on 2031-03-01" in told
        assert "b:m (canaries = false" in told
        assert (await ask("b:m")).status_code == 200


@in_a_loop
async def test_what_a_retired_reference_left(world: World) -> None:
    """Who agrees with what it left speaks for it where it was never asked: with an input type."""
    clock = at(RETIRES, before_ms=1)
    sections = (
        world.provider("a", *ENDS, kind="voyage"),
        world.provider("b", kind="voyage"),
    )
    async with world.gateway(*sections, clock=clock) as ask:
        await ask.proven("a:m", "b:m")
        clock.ms += 1
        probes = world.probes("a")
        reply = await ask("m", input_type="query")
        await settled()
        assert reply.headers["x-embedway-provider"] == "b"
        assert space_of(reply).startswith("m@a/")
        assert world.probes("a") == probes


@pytest.mark.parametrize(
    ("day", "expected"),
    [
        (date(2030, 11, 30), {}),  # 91 days before
        (date(2030, 12, 1), {"sunset": "Sat, 01 Mar 2031 00:00:00 GMT"}),
        (
            date(2031, 2, 28),
            {"sunset": "Sat, 01 Mar 2031 00:00:00 GMT", "deprecation": "@1926201600"},
        ),
    ],
)
@in_a_loop
async def test_headers(world: World, day: date, expected: dict[str, str]) -> None:
    """Answers say when their deployment retires, from 90 days before, and if it is deprecated."""
    async with world.gateway(world.provider("a", *ENDS), clock=at(day)) as ask:
        reply = await ask("a:m")
        assert reply.status_code == 200
        told = {name: reply.headers.get(name) for name in ("sunset", "deprecation")}
        assert {name: value for name, value in told.items() if value} == expected


def test_headers_of_several() -> None:
    """Of several deployments that shared the items, the first date counts."""
    days = [date(2031, 3, 1), date(2031, 2, 1)]
    told = dict(lifetime_headers(deprecated=days, retires=days))
    assert parsedate_to_datetime(told["sunset"]) == datetime(2031, 2, 1, tzinfo=UTC)
    assert told["deprecation"] == f"@{datetime(2031, 2, 1, tzinfo=UTC).timestamp():.0f}"
    assert not dict(lifetime_headers(deprecated=[], retires=[]))


@in_a_loop
async def test_models_endpoints_and_metrics(world: World) -> None:
    """A model that nobody serves any more is listed as a retired deployment, and as no model."""
    async with world.gateway(
        '[aliases]\none = "a:m"', world.provider("a", *ENDS), clock=at(RETIRES)
    ) as ask:
        headers = {"authorization": f"Bearer {world.key()}"}
        transport = httpx.ASGITransport(app=ask._gateway)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://gateway", headers=headers
        ) as client:
            listed = (await client.get("/v1/models")).json()["data"]
            assert {each["id"] for each in listed} == {"auto", "all-minilm-l6-v2"}
            hub = (await client.get("/api/v1/models")).json()["data"]
            assert [each["model_id"] for each in hub] == ["all-minilm-l6-v2"]
            for name in ("m", "a:m", "one"):
                assert "retired the model 'm'" in error(await client.get(f"/v1/models/{name}"))
            cards = (await client.get("/v1/embeddings/models?model=m")).json()["data"]
            [card] = cards
            assert (card["health"], card["retires"], card["successor"]) == (
                "retired",
                "2031-03-01",
                "n",
            )
            assert (card["deprecated"], card["released"]) == ("2031-01-15", None)
            assert "retired the model" in error(await ask("m"))
            metrics = (await client.get("/metrics")).text
    seconds = datetime(2031, 3, 1, tzinfo=UTC).timestamp()
    [line] = [
        each
        for each in metrics.splitlines()
        if each.startswith('embedway_deployment_retires_timestamp_seconds{deployment="a:m"}')
    ]
    assert float(line.split()[1]) == seconds
    assert 'embedway_refusals_total{reason="model_retired"} 1.0' in metrics


def test_operators_are_told(tmp_path: Path) -> None:
    """Doctor, `models show` and `catalog check` say what retires and what comes after it."""
    today = wall.today()
    soon, gone = today + timedelta(days=30), today - timedelta(days=1)
    toml = f"""
[aliases]
old = "rack:gone"
[providers.rack]
kind = "openai"
base_url = "http://127.0.0.1:9/v1"
api_key = "k"
[[providers.rack.models]]
id = "soon"
dimensions = 64
price_per_mtok_usd = "0.1"
retires = {soon}
successor = "new"
source = "https://rack.example/dates"
[[providers.rack.models]]
id = "gone"
dimensions = 64
price_per_mtok_usd = "0.1"
retires = {gone}
"""
    (tmp_path / "embedway.toml").write_text(toml)
    env = {
        "EMBEDWAY_DATA_DIR": str(tmp_path / "data"),
        "EMBEDWAY_LOCAL_SERVERS": "false",
        "EMBEDWAY_PROVIDERS_FROM_ENVIRONMENT": "false",
    }
    done = embedway("doctor", "--json", env=env, cwd=tmp_path)
    checks = {each["check"]: each for each in json.loads(done.stdout)}
    assert checks["models"]["level"] == "fail"
    assert f"'old' means rack:gone ({gone})" in checks["models"]["detail"]
    (tmp_path / "embedway.toml").write_text(toml.replace('old = "rack:gone"', ""))
    done = embedway("doctor", "--json", env=env, cwd=tmp_path)
    checks = {each["check"]: each for each in json.loads(done.stdout)}
    assert checks["models"]["level"] == "warn"
    assert f"rack:soon ({soon}; its successor is new)" in checks["models"]["detail"]
    assert "rack:gone" not in checks["models"]["detail"]
    found = embedway("catalog", "check", "--json", env=env, cwd=tmp_path)
    told = {each["where"]: each for each in json.loads(found.stdout) if "retire" in each["what"]}
    assert (told["rack:soon"]["level"], told["rack:gone"]["level"]) == ("warning", "info")
    assert "Ask for new" in told["rack:soon"]["cure"]
    assert embedway("db", "init", env=env, cwd=tmp_path).returncode == 0
    shown = embedway("models", "show", "rack:soon", env=env, cwd=tmp_path)
    assert f"{soon}, successor new, https://rack.example/dates" in shown.stdout, shown.stderr
    proven = embedway("spaces", "prove", env=env, cwd=tmp_path)
    assert "rack:soon did not answer the probe" in proven.stderr
    assert "rack:gone did not answer" not in proven.stderr


def served(**facts: object) -> Deployment:
    return Deployment(Model(id="m", dimensions=64), DeploymentSpec("a", **facts))


@pytest.mark.parametrize("name", ["released", "deprecated"])
def test_dates_that_cannot_be(name: str) -> None:
    """Nothing is released or deprecated after it retires."""
    wrong = served(retires=date(2030, 1, 1), **{name: date(2030, 1, 2)})
    found = check_catalog([wrong], own=(), today=date(2026, 1, 1))
    assert [each.what for each in found if each.level == "error"] == [
        f"{name} on 2030-01-02, after it retires on 2030-01-01"
    ]


def test_what_is_known() -> None:
    """Each date of the packaged catalog has its source; what the providers ended is retired."""
    kinds = [ProviderConfig(name=row.name, row=row) for row in ROWS.values() if not row.own_server]
    known = catalog.load_catalog(
        eu_native=False, offers=providers.provider_offers(kinds)
    ).deployments()
    for each in known:
        dated = each.spec
        if dated.released or dated.deprecated or dated.retires or dated.successor:
            assert dated.source, each.id
    gone = {each.id for each in known if is_retired(each.spec, date(2026, 11, 28))}
    assert {
        "together:bge-large-en-v1.5", "gemini:gemini-embedding-2-preview",
        "nvidia:nv-embedqa-e5-v5", "nvidia:llama-nemotron-embed-1b-v2", "nebius:bge-en-icl",
    } <= gone  # fmt: skip
    assert not gone & {"nebius:qwen3-embedding-8b", "vertex:text-embedding-005"}
    by_id = {each.id: each.spec for each in known}
    assert by_id["vertex:text-embedding-005"].retires == date(2027, 4, 1)
    slate = by_id["watsonx:slate-30m-english-rtrvr"]
    assert slate.successor == "granite-embedding-278m-multilingual"


def test_other_hosts_keep_what_a_provider_retires(tmp_path: Path) -> None:
    """Of a server that only speaks as a provider does, that provider's dates say nothing."""
    toml = """
[providers.mine]
kind = "gemini"
base_url = "http://127.0.0.1:9"
api_key = "k"
[[providers.mine.models]]
id = "gemini-embedding-2-preview"
"""
    (tmp_path / "embedway.toml").write_text(toml)
    env = {"EMBEDWAY_DATA_DIR": str(tmp_path), "EMBEDWAY_LOCAL_SERVERS": "false"}
    done = embedway("catalog", "check", "--json", env=env, cwd=tmp_path)
    told = [each for each in json.loads(done.stdout) if "retire" in each["what"]]
    assert "gemini:gemini-embedding-2-preview" in {each["where"] for each in told}
    assert "mine:gemini-embedding-2-preview" not in {each["where"] for each in told}


def test_a_day_is_computed_once() -> None:
    """Whoever asks within a day gets the very same answer; nothing is computed anew."""
    clock = at(RETIRES, before_ms=2)
    days: list[frozenset[str]] = []
    lifetimes = ModelLifetimes(
        [served(retires=RETIRES)], now_ms=clock.now_ms, on_retired=days.append
    )
    first = lifetimes.today()
    clock.ms += 1
    assert lifetimes.today() is first
    clock.ms += 1
    assert lifetimes.today().retired == {"a:m"}
    assert days == [frozenset(), {"a:m"}]
