"""Several processes at one port: as one gateway, whatever dies, is replaced or reloads."""

import os
import re
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Gateway, Minilm, get
from raw_http import load, until
from test_ledger import rows
from test_reload import Reloadable, provider

from embedway.catalog import catalog
from embedway.local.openvino import OpenVinoEncoder
from embedway.local.tokenizer import ModelTokenizer
from embedway.testing import Upstream

MODEL = "embedway.serving.model_process"
WORKER = "embedway.serving.worker"


def children(gateway: Gateway, of: str) -> list[int]:
    """Return the process ids of this gateway's workers, or of the process of its models."""
    assert gateway.process is not None
    found = []
    for task in Path(f"/proc/{gateway.process.pid}/task").iterdir():
        for pid in (task / "children").read_text().split():
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if of.encode() in command and not is_dead(int(pid)):
                found.append(int(pid))
    return sorted(found)


def is_dead(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def ask(number: int) -> dict[str, Any]:
    """Return a request to the provider."""
    return {"input": f"text {number}", "model": "one:m"}


def metrics(gateway: Gateway) -> Mapping[str, float]:
    """Return every sample of `/metrics`."""
    page = get(f"{gateway.url}/metrics", timeout=30).text
    samples = re.findall(r"^([^# ]+) (\S+)$", page, re.MULTILINE)
    assert len(dict(samples)) == len(samples)
    return {name: float(value) for name, value in samples}


@pytest.fixture(scope="module")
def running(
    minilm: object, tmp_path_factory: pytest.TempPathFactory, upstream: Upstream
) -> Iterator[Reloadable]:
    """Run a gateway of two workers that the tests here share."""
    gateway = Gateway(tmp_path_factory.mktemp("workers"), workers=2, log_level="info")
    made = Reloadable(gateway, provider("one", upstream))
    gateway.start()
    yield made
    gateway.kill()


@pytest.fixture
def gateway(running: Reloadable) -> Gateway:
    """Return the shared gateway, once it has both workers."""
    until(lambda: metrics(running.gateway)["embedway_workers"] == 2)
    return running.gateway


def test_all_answer(gateway: Gateway):
    """Each worker answers, and all write to one ledger."""
    before = Counter(pid_of(gateway) for _ in range(1))
    with load(gateway, ask, connections=16) as seen:
        until(lambda: len(seen.answers) > 200)
    assert (seen.broken, seen.refused) == ([], [])
    assert {answer["id"] for _, answer in seen.answers} <= {row["id"] for row in rows(gateway)}
    until(lambda: before.update([pid_of(gateway)]) or len(before) == 2, happened=before)
    assert set(before) == set(children(gateway, WORKER))


def pid_of(gateway: Gateway) -> int:
    """Return the worker that answers a new connection."""
    key = next(iter(KEYS.setdefault(id(gateway), [gateway.new_key("see", "--admin")["key"]])))
    answer = get(
        f"{gateway.url}/v1/organization/activity", headers={"authorization": f"Bearer {key}"}
    )
    return answer.json()["replica"]["process_id"]


KEYS: dict[int, list[str]] = {}


def test_built_in_model(gateway: Gateway, minilm: Minilm):
    """The built-in model runs in one process for all, and the vectors are its own."""
    [_] = children(gateway, MODEL)
    texts = ["The quick brown fox", "Der schnelle Fuchs", "a" * 300]
    whole = gateway.embed(input=texts)
    assert whole.status_code == 200, whole.text
    vectors = np.array([each["embedding"] for each in whole.json()["data"]])
    assert vectors.shape == (3, 384)
    [model] = catalog.load_catalog(eu_native=False).local_models()
    encoder = OpenVinoEncoder(minilm.weights, shape=model.weights.bert, precision="f32", threads=1)
    ids = ModelTokenizer(minilm.tokenizer).encode(texts)
    assert np.allclose(vectors, [encoder.encode([each])[0] for each in ids], atol=1e-5)
    assert metrics(gateway)['embedway_batch_items_count{model="all-minilm-l6-v2"}'] > 0


@pytest.mark.parametrize("of", ["requests", "tokens"])
def test_limit_is_exact(gateway: Gateway, of: str):
    """All workers together let in exactly as many as the limit says."""
    amount = 100
    made = gateway.new_key(f"limited {of}", "--limit", f"{of}={amount}/day")
    shared, gateway.key = gateway.key, made["key"]
    try:
        with load(gateway, lambda _: {"input": "a", "model": "one:m"}, connections=12) as seen:
            until(lambda: len(seen.refused) >= 40)
    finally:
        gateway.key = shared
    assert seen.broken == []
    assert set(seen.refused) == {429}
    used = sum(
        1 if of == "requests" else answer["usage"]["total_tokens"] for _, answer in seen.answers
    )
    assert used == amount


def test_budget_is_exact(gateway: Gateway):
    """All workers together spend no more than the budget, and nearly all of it."""
    made = gateway.new_key("budgeted", "--budget", "0.0001/total")
    shared, gateway.key = gateway.key, made["key"]
    try:
        with load(gateway, lambda _: {"input": "a b c d", "model": "one:m"}) as seen:
            until(lambda: len(seen.refused) >= 40)
    finally:
        gateway.key = shared
    assert set(seen.refused) == {429}
    spent = sum(row["cost_nano_usd"] for row in rows(gateway) if row["key_id"] == made["id"])
    assert 0 < spent <= 100_000


def test_metrics_are_summed(gateway: Gateway):
    """Whichever worker is asked, the metrics are those of all."""
    name = 'embedway_requests_total{route="/v1/embeddings",status="200"}'
    before = metrics(gateway).get(name, 0)
    with load(gateway, ask, connections=8) as seen:
        until(lambda: len(seen.answers) > 60)
    answered = len(seen.answers)
    for _ in range(6):
        now = metrics(gateway)
        assert now[name] == before + answered
        assert now["embedway_database_available"] == 1
        assert now["embedway_requests_in_flight_max"] == 512
        assert now["embedway_queue_tokens_max"] == 600_000


def test_killed_worker(gateway: Gateway):
    """A worker that is killed under load is started again; what it answered is in the ledger."""
    before, counted = children(gateway, WORKER), metrics(gateway)
    with load(gateway, ask, connections=12) as seen:
        until(lambda: len(seen.answers) > 50)
        os.kill(before[0], signal.SIGKILL)
        until(
            lambda: (
                len(children(gateway, WORKER)) == 2 and before[0] not in children(gateway, WORKER)
            )
        )
        enough = len(seen.answers) + 50
        until(lambda: len(seen.answers) > enough)
    assert seen.refused == []
    recorded = Counter(row["id"] for row in rows(gateway))
    assert all(recorded[answer["id"]] == 1 for _, answer in seen.answers)
    until(lambda: metrics(gateway)["embedway_workers"] == 2)
    now = metrics(gateway)
    assert now['embedway_restarts_total{process="worker"}'] >= 1
    fallen = {
        name: (counted[name], now.get(name))
        for name in counted
        if name.startswith("embedway_")
        and name.endswith(("_total", "_count"))
        and now.get(name, -1) < counted[name]
    }
    assert not fallen
    assert '"worker died"' in gateway.log.read_text()


def test_replaced_under_load(gateway: Gateway):
    """SIGUSR2 replaces all workers one by one, and no request fails."""
    before = children(gateway, WORKER)
    with load(gateway, ask, connections=12) as seen:
        until(lambda: len(seen.answers) > 50)
        counted = metrics(gateway)
        gateway.signal(signal.SIGUSR2)
        until(lambda: not set(before) & set(children(gateway, WORKER)))
        assert gateway.ready()
        enough = len(seen.answers) + 50
        until(lambda: len(seen.answers) > enough)
    assert (seen.broken, seen.refused) == ([], [])
    recorded = Counter(row["id"] for row in rows(gateway))
    assert all(recorded[answer["id"]] == 1 for _, answer in seen.answers)
    name = 'embedway_requests_total{route="/v1/embeddings",status="200"}'
    assert metrics(gateway)[name] >= counted[name] + 50


def test_killed_models(gateway: Gateway):
    """If the process of the models is killed, requests wait for the next one."""
    [before] = children(gateway, MODEL)
    with load(gateway, lambda n: {"input": f"text {n}"}, connections=4) as seen:
        until(lambda: len(seen.answers) > 8)
        os.kill(before, signal.SIGKILL)
        until(lambda: children(gateway, MODEL) not in ([], [before]))
        enough = len(seen.answers) + 20
        until(lambda: len(seen.answers) > enough)
    assert (seen.broken, seen.refused) == ([], [])
    assert metrics(gateway)['embedway_restarts_total{process="models"}'] >= 1


def test_reload_all(running: Reloadable, gateway: Gateway, upstream: Upstream):
    """A reload reaches every worker, and those that are started later."""
    changes = running.reload(provider("one", upstream) + provider("two", upstream))
    assert ("provider", "two") in {(each["kind"], each["name"]) for each in changes}
    for _ in range(20):
        assert gateway.embed(model="two:m", input="a").status_code == 200
    old = children(gateway, WORKER)
    gateway.signal(signal.SIGUSR2)
    # The file is not what is in force.
    running.write("port = ")
    until(lambda: not set(old) & set(children(gateway, WORKER)))
    for _ in range(20):
        assert gateway.embed(model="two:m", input="a").status_code == 200
    answer = running.post()
    assert answer.status_code == 400
    assert "stays in force" in answer.json()["error"]["message"]
    running.write(provider("one", upstream))
    gateway.signal(signal.SIGHUP)
    until(lambda: gateway.embed(model="two:m", input="a").status_code == 404)
    for _ in range(20):
        assert gateway.embed(model="two:m", input="a").status_code == 404
        assert gateway.embed(model="one:m", input="a").status_code == 200


def test_reload_none(running: Reloadable, gateway: Gateway, upstream: Upstream):
    """If any worker cannot use the new configuration, none does."""
    running.write(
        provider("one", upstream) + provider("two", upstream)
        + '[providers.x]\nkind = "bedrock"\napi_key = "a:b"\nregion = "eu-west-1"\n'
    )  # fmt: skip
    answer = running.post()
    assert answer.status_code == 400, answer.text
    assert "[providers.x]" in answer.json()["error"]["message"]
    for _ in range(20):
        assert gateway.embed(model="two:m", input="a").status_code == 404
    running.write('durability = "power"\n' + provider("one", upstream))
    changes = running.reload()
    assert [(each["name"], each["needs_restart"]) for each in changes] == [("durability", True)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_drained(new_gateway: Callable[..., Gateway], upstream: Upstream, number: signal.Signals):
    """A signal drains all workers, and no request fails."""
    gateway = new_gateway(workers=2, drain_s=1)
    Reloadable(gateway, provider("one", upstream))
    gateway.start()
    pids = [*children(gateway, WORKER), *children(gateway, MODEL)]
    assert len(pids) == 3
    with load(gateway, ask) as seen:
        until(lambda: len(seen.answers) > 50)
        seen.is_stopping = True
        gateway.signal(number)
        until(lambda: not gateway.ready())
        assert gateway.wait() == 0
    assert (seen.broken, seen.refused) == ([], [])
    recorded = sorted(row["id"] for row in rows(gateway) if row["status"] == 200)
    assert recorded == sorted(answer["id"] for _, answer in seen.answers)
    assert all(map(is_dead, pids))
    assert "Traceback" not in gateway.log.read_text()


def test_killed_supervisor(new_gateway: Callable[..., Gateway], upstream: Upstream):
    """If the supervisor is killed, the others finish what is in flight and end."""
    gateway = new_gateway(workers=2)
    Reloadable(gateway, provider("one", upstream))
    gateway.start()
    pids = [*children(gateway, WORKER), *children(gateway, MODEL)]
    folder = Path(f"/proc/{pids[-1]}/fd")
    assert folder.exists()
    with load(gateway, ask) as seen:
        until(lambda: len(seen.answers) > 50)
        seen.is_stopping = True
        gateway.kill()
        until(lambda: all(map(is_dead, pids)))
    assert (seen.broken, seen.refused) == ([], [])
    assert gateway.start().embed(input="a").status_code == 200


def test_cannot_start(new_gateway: Callable[..., Gateway]):
    """What no worker can do ends the start with its reason, and leaves no process behind."""
    gateway = new_gateway(workers=2)
    (gateway.folder / "embedway.toml").write_text(
        '[providers.x]\nkind = "bedrock"\napi_key = "a:b"\nregion = "eu-west-1"\n'
    )
    run = gateway.cli("serve")
    assert run.returncode == 1
    assert "[providers.x]" in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize("value", ["0", "-1", "many", "1.5", "65"])
def test_wrong_number(new_gateway: Callable[..., Gateway], value: str):
    """A number of workers that cannot be is refused, wherever it is set."""
    gateway = new_gateway(workers=value)
    run = gateway.cli("serve")
    assert run.returncode == 1
    assert f"EMBEDWAY_WORKERS = '{value}': it must be a whole number from 1 to 64" in run.stderr
    del gateway.env["EMBEDWAY_WORKERS"]
    run = gateway.cli("serve", "--workers", value)
    assert run.returncode == 2
    assert f"--workers '{value}' is not possible" in run.stderr
