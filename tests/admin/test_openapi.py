"""The gateway's OpenAPI document, documentation page, health checks and metrics."""

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from conftest import Gateway, get
from fastapi.routing import iter_route_contexts

from embedway.admin import control
from embedway.api.embeddings import PATHS
from embedway.core.request import EmbedRequest
from embedway.observe.metrics import Metrics

OPEN = {"/livez", "/readyz", "/metrics", "/docs", "/openapi.json", "/api/v1/models"}
# Routes that take credentials other than a bearer token.
SENT = {"/api/v1/oauth2/token": {"grant_type": "client_credentials", "client_id": "key_a",
                                 "client_secret": "sk-gateway-wrong"}}  # fmt: skip
RESPONSES = {"200", "400", "401", "403", "404", "408", "413", "415", "429", "502", "503", "504"}


@pytest.fixture(scope="module")
def client(gateway: Gateway) -> Iterator[httpx.Client]:
    """A client with a valid key."""
    with gateway.client() as client:
        yield client


@pytest.fixture(scope="module")
def schema(gateway: Gateway) -> dict[str, Any]:
    """The OpenAPI document, fetched without a key."""
    return get(f"{gateway.url}/openapi.json").raise_for_status().json()


@pytest.fixture(scope="module")
def paths() -> set[str]:
    """The paths of all routes of the application, as OpenAPI writes them."""
    nothing = control.ControlPlaneServices(service=None, tokens=None, reports=None, now_ms=int)
    app = control.create_control_plane(
        listing=None,
        services=nothing,
        authenticator=None,
        metrics=Metrics(),
        check_ready=None,
        embeddings_paths=PATHS,
    )
    found = {re.sub(r":\w+}", "}", route.path) for route in iter_route_contexts(app.routes)}
    return found - {"/docs/assets"} | PATHS


def values(node: Any, name: str) -> Iterator[Any]:
    """Yield every value of this name at any depth."""
    if isinstance(node, dict):
        if name in node:
            yield node[name]
        for each in node.values():
            yield from values(each, name)
    elif isinstance(node, list):
        for each in node:
            yield from values(each, name)


def test_references(schema: dict[str, Any]) -> None:
    """The document is OpenAPI 3.1, and every reference in it resolves."""
    assert schema["openapi"].startswith("3.1.")
    assert schema["info"]["title"] == "Embedway"
    assert schema["info"]["version"]
    references = set(values(schema, "$ref"))
    assert references
    for reference in references:
        assert reference.startswith("#/")
        node = schema
        for step in reference[2:].split("/"):
            node = node[step]
    used = {reference.rpartition("/")[2] for reference in references}
    assert used == set(schema["components"]["schemas"])


def test_every_route(schema: dict[str, Any], paths: set[str]) -> None:
    """Every route has a summary, a description, a response and a unique operation id."""
    assert set(schema["paths"]) == paths - {"/docs", "/openapi.json"}
    operations = [each for path in schema["paths"].values() for each in path.values()]
    for operation in operations:
        assert operation["summary"]
        assert operation["description"]
        assert operation["responses"]["200"]["description"]
    ids = [operation["operationId"] for operation in operations]
    assert len(set(ids)) == len(ids)


def test_keys(schema: dict[str, Any], gateway: Gateway, paths: set[str]) -> None:
    """Only the routes documented as open need no key; all others answer 401 without one."""
    scheme = schema["components"]["securitySchemes"]["key"]
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    for path in paths:
        method, described = next(iter(schema["paths"].get(path, {"get": {}}).items()))
        answer = httpx.request(method, gateway.url + path, timeout=30, data=SENT.get(path))
        assert answer.status_code == (200 if path in OPEN else 401), path
        assert ("security" in described) == (path not in OPEN and path not in SENT)


def test_embeddings(schema: dict[str, Any]) -> None:
    """The embeddings paths describe every field of a request, and allow null if it is optional."""
    request = schema["components"]["schemas"]["EmbedRequest"]
    assert list(request["properties"]) == list(EmbedRequest.__struct_fields__)
    assert request["required"] == ["input"]
    for name, field in request["properties"].items():
        assert len(field["description"]) > 20
        assert ({"type": "null"} in field.get("anyOf", [])) == (name != "input")
        assert ("default" in field) == (name != "input")
    for path in PATHS:
        operation = schema["paths"][path]["post"]
        body = operation["requestBody"]["content"]["application/json"]
        assert body["schema"] == {"$ref": "#/components/schemas/EmbedRequest"}
        assert set(operation["responses"]) == RESPONSES
    assert len({schema["paths"][path]["post"]["operationId"] for path in PATHS}) == len(PATHS)


def test_examples(schema: dict[str, Any], client: httpx.Client) -> None:
    """Each example succeeds, and its response has exactly the described body and headers."""
    for path in PATHS:
        operation = schema["paths"][path]["post"]
        example = operation["requestBody"]["content"]["application/json"]["example"]
        answer = client.post(path, json=example)
        assert answer.status_code == 200
        assert set(operation["responses"]["200"]["headers"]) <= set(answer.headers)
        described = schema["components"]["schemas"]["EmbeddingsResponse"]
        assert set(answer.json()) == set(described["required"]) == set(described["properties"])


def test_dry_run(schema: dict[str, Any], client: httpx.Client) -> None:
    """A dry run's response has exactly the described fields."""
    parts = schema["components"]["schemas"]
    operation = schema["paths"]["/v1/embeddings"]["post"]
    [parameter] = [each for each in operation["parameters"] if each["in"] == "query"]
    assert (parameter["name"], parameter["schema"]["type"]) == ("dry_run", "boolean")
    answers = operation["responses"]["200"]["content"]["application/json"]["schema"]["oneOf"]
    named = [each["$ref"].rpartition("/")[2] for each in answers]
    assert named == ["EmbeddingsResponse", "DryRun"]
    plan = client.post("/v1/embeddings?dry_run=true", json={"input": "a"}).json()
    assert set(plan) == set(parts["DryRun"]["properties"])
    [candidate] = plan["candidates"]
    assert set(candidate) == set(parts["DryRunCandidate"]["properties"])
    assert parts["DryRunExclusion"]["properties"].keys() == {"id", "filter", "reason"}


def test_docs(gateway: Gateway) -> None:
    """The documentation page loads everything from the gateway, so it works offline."""
    page = get(f"{gateway.url}/docs").raise_for_status()
    assert page.headers["content-type"].startswith("text/html")
    links = re.findall(r"""(?:src|href)=["']([^"']+)""", page.text)
    assert len(links) == 3
    for link in (*links, "/openapi.json"):
        assert link.startswith("/")
        assert not link.startswith("//")
        assert get(gateway.url + link).raise_for_status().content
    assert not re.findall(r"https?:", page.text)


# Health, metrics, logs


def test_health(gateway: Gateway) -> None:
    """A running gateway is alive and ready."""
    for path, status in (("/livez", "alive"), ("/readyz", "ready")):
        answer = get(gateway.url + path)
        assert (answer.status_code, answer.json()) == (200, {"status": status})


def test_nothing_private_is_shown(gateway: Gateway) -> None:
    """No metric or log line has a key, text, metadata or vector; no metric has an end user."""
    request = {"input": "zebra-text", "user": "zebra-user", "metadata": {"zebra-a": "zebra-b"}}
    with gateway.client(headers={"x-on-behalf-of": "zebra-person"}) as client:
        good = client.post("/v1/embeddings", json=request)
        assert good.status_code == 200
        for bad in ({"model": "zebra-model"}, {"zebra-field": 1}, {"user": "zebra\0"}):
            answer = client.post("/v1/embeddings", json=request | bad)
            assert answer.status_code in {400, 404}
    headers = {"authorization": "Bearer zebra-key"}
    assert httpx.post(f"{gateway.url}/v1/embeddings", headers=headers).status_code == 401
    page = get(f"{gateway.url}/metrics")
    assert page.headers["content-type"].startswith("text/plain; version=0.0.4")
    vector = str(good.json()["data"][0]["embedding"][0])
    log = gateway.log.read_text()
    assert good.headers["x-request-id"] in log
    for shown in (page.text, log.replace("zebra-person", "").replace("zebra-model", "")):
        for private in ("zebra", gateway.key, vector):
            assert private not in shown
    assert '"end_user":"zebra-person"' in log
