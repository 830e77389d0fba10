"""The gateway's OpenAPI document, documentation page, health checks and metrics."""

import re
from collections.abc import Callable, Iterator
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
STATUSES = (200, 400, 401, 403, 404, 408, 413, 415, 429, 500, 502, 503, 504)
SOMETIMES = ("x-ratelimit-", "deprecation", "sunset")
"""The beginnings of headers that only some answers have."""
RESPONSES = {str(each) for each in STATUSES}
OPERATIONS = """
embed embed_cortecs embed_mka1
list_models retrieve_model list_deployments list_deployments_mka1 list_hub_models
create_file list_files retrieve_file download_file delete_file
create_batch list_batches retrieve_batch cancel_batch
exchange_token issue_client_token
list_projects create_project retrieve_project update_project archive_project
list_api_keys create_api_key retrieve_api_key update_api_key rotate_api_key revoke_api_key
list_admin_api_keys create_admin_api_key retrieve_admin_api_key rotate_admin_api_key
revoke_admin_api_key
list_end_users set_end_user retrieve_end_user update_end_user remove_end_user
list_audit_events get_usage get_usage_mka1 get_costs get_refusals
get_activity reload_configuration
get_liveness get_readiness get_metrics
"""
"""The operation ids, which are the names of methods in generated clients and so never change."""


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
    nothing = control.ControlPlaneServices(
        **dict.fromkeys(control.ControlPlaneServices.__struct_fields__)
    )
    app = control.create_control_plane(
        listing=None,
        services=nothing,
        authenticator=None,
        metrics=Metrics(),
        check_ready=None,
        embeddings_paths=PATHS,
        max_items=lambda: 2048,
        reload=None,
    )
    found = {re.sub(r":\w+}", "}", route.path) for route in iter_route_contexts(app.routes)}
    return found - {"/docs/assets"} | set(PATHS)


def operations(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """Return all operations of the document."""
    return [each for path in schema["paths"].values() for each in path.values()]


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


def sent(answer: httpx.Response) -> set[str]:
    """Return the headers of an answer that are not of HTTP itself."""
    return set(answer.headers) - {"content-type", "content-length", "date", "server"}


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
    """Every route has a summary, a description, the type of its answer and the error type."""
    assert set(schema["paths"]) == paths - {"/docs", "/openapi.json"}
    for operation in operations(schema):
        assert operation["summary"]
        assert operation["description"]
        assert operation["responses"]["200"]["description"]
        assert set(operation["responses"]) in ({"200", "4XX", "5XX"}, RESPONSES)
        for status, described in operation["responses"].items():
            [content] = described["content"].values()
            assert ("$ref" in content["schema"]) or status == "200", operation["operationId"]
            if status != "200":
                assert content["schema"] == {"$ref": "#/components/schemas/Error"}


def test_generated_clients_get_clean_names(schema: dict[str, Any]) -> None:
    """The ids of operations and the names of types are those of a well-made client."""
    ids = [operation["operationId"] for operation in operations(schema)]
    assert sorted(ids) == sorted(OPERATIONS.split())
    names = set(schema["components"]["schemas"])
    assert {"ApiKey", "AdminApiKey", "EndUser", "AuditEvent", "UsagePage", "ProjectPage"} < names
    assert [name for name in names if not re.fullmatch(r"([A-Z][a-z]+)+", name)] == []
    assert [name for name in names if re.search("Card|Body|Cards", name)] == []
    for operation in operations(schema):
        for body in operation.get("requestBody", {}).get("content", {}).values():
            assert set(body["schema"]) == {"$ref"}


def test_answers_have_every_field(schema: dict[str, Any]) -> None:
    """All fields of an answer's types are required, because the gateway sends them all."""
    parts = schema["components"]["schemas"]
    answers = [each["responses"]["200"] for each in operations(schema)]
    named, last = set(values(answers, "$ref")), set[str]()
    while named != last:
        last = named
        nested = (parts[name.rpartition("/")[2]] for name in named)
        named = named | {each for part in nested for each in values(part, "$ref")}
    assert len(named) > 30
    for name in (each.rpartition("/")[2] for each in named):
        optional = set(parts[name]["properties"]) - set(parts[name]["required"])
        assert optional == ({"completion_tokens"} if name == "EmbeddingsUsage" else set()), name
    assert parts["ClientToken"]["properties"]["expires_in"]["description"] == "In seconds from now."


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
    request = schema["components"]["schemas"]["EmbeddingsRequest"]
    assert list(request["properties"]) == list(EmbedRequest.__struct_fields__)
    assert request["required"] == ["input"]
    for name, field in request["properties"].items():
        assert len(field["description"]) > 20
        assert ({"type": "null"} in field.get("anyOf", [])) == (name != "input")
        assert ("default" in field) == (name != "input")
    for path in PATHS:
        operation = schema["paths"][path]["post"]
        body = operation["requestBody"]["content"]["application/json"]
        assert body["schema"] == {"$ref": "#/components/schemas/EmbeddingsRequest"}
        assert set(operation["responses"]) == RESPONSES
        assert operation["operationId"] == PATHS[path]


def test_examples(schema: dict[str, Any], client: httpx.Client) -> None:
    """Each example succeeds, and its response has exactly the described body and headers."""
    for path in PATHS:
        operation = schema["paths"][path]["post"]
        example = operation["requestBody"]["content"]["application/json"]["example"]
        answer = client.post(path, json=example)
        assert answer.status_code == 200
        described = operation["responses"]["200"]["headers"]
        assert sent(answer) == {name for name in described if not name.startswith(SOMETIMES)}
        described = schema["components"]["schemas"]["EmbeddingsResponse"]
        assert set(answer.json()) == set(described["required"]) == set(described["properties"])


def test_headers_are_described(schema: dict[str, Any], new_gateway: Callable[..., Gateway]) -> None:
    """A limited answer, or an error, has no header that is not described."""
    gateway = new_gateway().start()
    described = schema["paths"]["/v1/embeddings"]["post"]["responses"]
    key = gateway.new_key("limited", "--limit", "requests=1/minute")["key"]
    statuses: list[int] = []
    for bearer, body in (("sk-gateway-wrong", "{}"), (key, "{"), *[(key, '{"input": "a"}')] * 2):
        answer = httpx.post(
            f"{gateway.url}/v1/embeddings",
            headers={"authorization": f"Bearer {bearer}"},
            content=body,
            timeout=30,
        )
        statuses.append(answer.status_code)
        assert sent(answer) <= set(described[str(answer.status_code)]["headers"])
    assert statuses == [401, 400, 200, 429]


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
