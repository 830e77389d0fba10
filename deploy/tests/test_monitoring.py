"""The alerts and the dashboard, by a real Prometheus that scrapes a real gateway."""

# ruff: noqa: E501  # a table of series is easier to read with a line for each

import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from conftest import Gateway, free_port, minilm, new_gateway, upstream
from servers import Redis, binary, shared_redis

from embedway.testing import Upstream

__all__ = ["minilm", "new_gateway", "shared_redis", "upstream"]

DEPLOY = Path(__file__).parent.parent
RULES = DEPLOY / "prometheus/alerts.yaml"
DASHBOARD = DEPLOY / "grafana/embedway.json"
WAIT_S = 60
METRIC = re.compile(r"\b(?:embedway|process)_\w+")
SERIES_SUFFIX = re.compile(r"_(?:bucket|sum|count)$")
LABEL = re.compile(r"(\w+)(?:=~|!=|!~|=)\"|by \(([^)]*)\)|\{\{ ?\$?(?:labels\.)?(\w+) ?\}\}")
OF_PROMETHEUS = {"job", "instance", "le", "value"}
"""The names that the gateway does not give: labels that Prometheus adds, and an alert's value."""
DAY_S = 86_400

ALWAYS, NEVER = "1x120", "0x120"
CASES: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "EmbedwayDown": ({"up": NEVER}, {"up": ALWAYS}),
    "EmbedwayErrors": (
        {'embedway_requests_total{status="200"}': "0+90x120", 'embedway_requests_total{status="503"}': "0+10x120"},
        {'embedway_requests_total{status="200"}': "0+99x120", 'embedway_requests_total{status="429"}': "0+99x120",
         'embedway_requests_total{status="503"}': "0+1x120"},
    ),
    "EmbedwaySlow": (
        {'embedway_request_seconds_bucket{le="5"}': "0+90x120", 'embedway_request_seconds_bucket{le="10"}': "0+100x120",
         'embedway_request_seconds_bucket{le="+Inf"}': "0+100x120"},
        {'embedway_request_seconds_bucket{le="5"}': "0+100x120", 'embedway_request_seconds_bucket{le="10"}': "0+100x120",
         'embedway_request_seconds_bucket{le="+Inf"}': "0+100x120"},
    ),
    "EmbedwayProviderFailing": (
        {'embedway_provider_calls_total{provider="a",outcome="ok"}': "0+50x120",
         'embedway_provider_calls_total{provider="a",outcome="timeout"}': "0+50x120"},
        {'embedway_provider_calls_total{provider="a",outcome="ok"}': "0+90x120",
         'embedway_provider_calls_total{provider="a",outcome="timeout"}': "0+10x120"},
    ),
    "EmbedwayModelEjected": ({"embedway_models_ejected": ALWAYS}, {"embedway_models_ejected": NEVER}),
    "EmbedwayDrift": ({"embedway_deployments_drifted": ALWAYS}, {"embedway_deployments_drifted": NEVER}),
    "EmbedwayLimitsNotShared": ({"embedway_limits_shared": NEVER}, {"embedway_limits_shared": ALWAYS}),
    "EmbedwayDatabaseUnavailable": ({"embedway_database_available": NEVER}, {"embedway_database_available": ALWAYS}),
    "EmbedwayLedgerWaiting": ({"embedway_ledger_rows_waiting": "2000x120"}, {"embedway_ledger_rows_waiting": "10x120"}),
    "EmbedwayModelRetires": (
        {'embedway_deployment_retires_timestamp_seconds{deployment="a:m"}': f"{20 * DAY_S}x120"},
        {'embedway_deployment_retires_timestamp_seconds{deployment="a:m"}': f"{40 * DAY_S}x120"},
    ),
    "EmbedwayLogLinesDropped": ({"embedway_log_lines_dropped_total": "0+1x120"}, {"embedway_log_lines_dropped_total": "7x120"}),
    "EmbedwayNearlyFull": (
        {"embedway_requests_in_flight": "500x120", "embedway_requests_in_flight_max": "512x120"},
        {"embedway_requests_in_flight": "5x120", "embedway_requests_in_flight_max": "512x120",
         "embedway_queue_tokens": NEVER, "embedway_queue_tokens_max": NEVER,
         "process_open_fds": "5x120", "process_max_fds": "1024x120"},
    ),
    "EmbedwayEventLoopBlocked": (
        {'embedway_event_loop_lag_seconds_bucket{le="0.25"}': "0+90x120", 'embedway_event_loop_lag_seconds_bucket{le="1"}': "0+120x120",
         'embedway_event_loop_lag_seconds_bucket{le="+Inf"}': "0+120x120"},
        {'embedway_event_loop_lag_seconds_bucket{le="0.25"}': "0+120x120", 'embedway_event_loop_lag_seconds_bucket{le="1"}': "0+120x120",
         'embedway_event_loop_lag_seconds_bucket{le="+Inf"}': "0+120x120"},
    ),
}  # fmt: skip
"""For each alert, series that fire it and series that do not, a value each minute."""


def promtool(*arguments: object) -> str:
    """Run promtool, which must succeed; return what it prints."""
    done = subprocess.run(
        [binary("promtool"), *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_configuration(tmp_path: Path) -> None:
    """Prometheus accepts the file to start from, the page's part of it, and the alerts."""
    shutil.copy(RULES, tmp_path)
    page = (DEPLOY.parent / "docs/monitoring.md").read_text()
    [block] = re.findall(r"^```yaml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "prometheus.yaml").write_text(block)
    for folder in (RULES.parent, tmp_path):
        printed = promtool("check", "config", folder / "prometheus.yaml")
        assert "SUCCESS: 1 rule files found" in printed


def test_every_alert_has_a_case_and_a_section() -> None:
    """Each alert has series that fire it, and its link leads to a heading of the docs."""
    rules = RULES.read_text()
    assert set(re.findall(r"- alert: (\w+)", rules)) == set(CASES)
    page = (DEPLOY.parent / "docs/monitoring.md").read_text()
    headings = {
        re.sub(r"[^a-z0-9 -]", "", each.lower()).replace(" ", "-")
        for each in re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    }
    links = re.findall(r"runbook_url: docs/monitoring\.md#(\S+)", rules)
    assert len(links) == len(CASES)
    assert set(links) <= headings


def test_alerts(tmp_path: Path) -> None:
    """Each alert fires when it should, has its texts filled in, and does not fire otherwise."""
    tests = [
        {
            "interval": "1m",
            "input_series": [{"series": add_labels(name), "values": values} for name, values in series.items()],
            "promql_expr_test": [
                {
                    "expr": f'count(ALERTS{{alertname="{alert}",alertstate="firing"}}) or vector(0)',
                    "eval_time": "90m",
                    "exp_samples": [{"labels": "{}", "value": int(fires)}],
                }
            ],
        }
        for alert, (firing, quiet) in CASES.items()
        for series, fires in ((firing, True), (quiet, False))
    ]  # fmt: skip
    written = {"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": tests}
    path = tmp_path / "tests.yaml"
    path.write_text(json.dumps(written))
    assert "SUCCESS" in promtool("test", "rules", path)


def add_labels(series: str) -> str:
    """Add the labels that Prometheus adds to what it scrapes."""
    name, _, labels = series.partition("{")
    return f'{name}{{job="embedway",instance="one:8080"{"," + labels if labels else "}"}'


@pytest.fixture(scope="module")
def dashboard() -> list[dict]:
    """The panels of the dashboard that draw something."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [each for each in panels if each["type"] != "row"]


@pytest.fixture
def busy(new_gateway: Callable[..., Gateway], upstream: Upstream, shared_redis: Redis) -> Gateway:
    """A gateway with Redis and a provider that has had traffic and errors of every kind."""
    gateway = new_gateway(canaries=True, redis_url=shared_redis.url)
    (gateway.folder / "embedway.toml").write_text(
        f'[providers.acme]\nkind = "openai"\nbase_url = "{upstream.url}/openai/v1"\napi_key = "k"\n'
        '[[providers.acme.models]]\nid = "m"\ndimensions = 64\nprice_per_mtok_usd = "100"\n'
        'retires = "2099-01-01"\n'
    )
    gateway.start()
    spender = gateway.new_key("spender", "--budget", "1/day", "--alert", "1")["key"]
    assert gateway.embed(input="one").status_code == 200
    assert gateway.embed(model="nope", input="one").status_code == 404
    with gateway.client(headers={"authorization": f"Bearer {spender}"}) as client:
        sent = client.post("/v1/embeddings", json={"model": "acme:m", "input": ["word " * 150] * 2})
        assert sent.status_code == 200, sent.text
    return gateway


@pytest.fixture
def prometheus(busy: Gateway, tmp_path: Path) -> Iterator[str]:
    """The URL of a Prometheus that has scraped the gateway at least twice."""
    program, port = binary("prometheus"), free_port()
    example = (DEPLOY / "prometheus/prometheus.yaml").read_text()
    config = tmp_path / "prometheus.yaml"
    config.write_text(
        example.replace("127.0.0.1:8080", f"127.0.0.1:{busy.port}")
        .replace("_interval: 15s", "_interval: 1s")
        .replace("- alerts.yaml", f"- {RULES}")
    )
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'data'}",
             f"--web.listen-address=127.0.0.1:{port}"],
            stdout=log, stderr=log,
        )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + WAIT_S
        while len(matrix(url)) < 2:
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait(WAIT_S)


def matrix(url: str) -> list:
    """The values that were scraped of a series so far."""
    try:
        answer = httpx.get(
            f"{url}/api/v1/query", params={"query": "embedway_database_available[5m]"}
        )
        result = answer.json()["data"]["result"]
    except (httpx.HTTPError, ValueError, KeyError):
        return []
    return result[0]["values"] if result else []


def test_queries(prometheus: str, busy: Gateway, dashboard: list[dict]) -> None:
    """Every query of a panel or an alert runs, and names metrics and labels that there are."""
    groups = httpx.get(f"{prometheus}/api/v1/rules").json()["data"]["groups"]
    rules = [each for group in groups for each in group["rules"]]
    assert {each["name"] for each in rules} == set(CASES)
    assert not [each for each in rules if each["health"] == "err"]
    page = httpx.get(f"{busy.url}/metrics").text
    metrics = set(re.findall(r"^# TYPE (\S+) ", page, re.MULTILINE))
    labels = set(re.findall(r"[{,](\w+)=\"", page)) | OF_PROMETHEUS
    targets = [each for panel in dashboard for each in panel["targets"]]
    assert len(targets) > 40
    texts = [each["query"] for each in rules]
    texts += [text for each in rules for text in each["annotations"].values()]
    empty = []
    for each in targets:
        query = (
            each["expr"]
            .replace("$__rate_interval", "1m")
            .replace("$job", ".*")
            .replace("$instance", ".*")
        )
        texts += [query, each["legendFormat"]]
        answer = httpx.get(f"{prometheus}/api/v1/query", params={"query": query})
        assert answer.status_code == 200, f"{query}: {answer.text}"
        if not answer.json()["data"]["result"]:
            empty.append(query)
    for text in texts:
        for name in METRIC.findall(text):
            assert {name, SERIES_SUFFIX.sub("", name)} & metrics, name
        used = {
            each
            for found in LABEL.findall(text)
            for group in found
            for each in re.split(r", ?", group)
        }
        assert used - {""} <= labels, text
    # Only what a healthy gateway never has may have no values.
    rare = ('outcome!="ok"', "ejections_total", "overcounts", "unreadable", "retires")
    assert not [each for each in empty if not any(name in each for name in rare)]


def test_dashboard_imports(dashboard: list[dict]) -> None:
    """The dashboard takes its data source from a variable, and uses Grafana's own panels only."""
    whole = json.loads(DASHBOARD.read_text())
    assert whole["templating"]["list"][0]["type"] == "datasource"
    assert {each["type"] for each in dashboard} == {"timeseries", "stat"}
    assert len({each["id"] for each in whole["panels"]}) == len(whole["panels"])
    sources = {source["uid"] for each in dashboard for source in (each["datasource"], *(target["datasource"] for target in each["targets"]))}  # fmt: skip
    assert sources == {"${datasource}"}
