"""The control plane refuses repeated fields and parameters, and survives odd JSON."""

from collections.abc import Iterator

import httpx
import pytest
from conftest import Gateway

PROJECTS = "/v1/organization/projects"
AUDIT = "/v1/organization/audit_logs"
KEYS = f"{PROJECTS}/proj_default/api_keys"
EXCHANGE = "/api/v1/authentication/api-key/exchange-token"
OAUTH = "/api/v1/oauth2/token"


@pytest.fixture(scope="module")
def admin(gateway: Gateway) -> Iterator[httpx.Client]:
    """A client with an admin key."""
    key = gateway.new_key("twice", "--admin")["key"]
    with gateway.client(headers={"authorization": f"Bearer {key}"}) as client:
        yield client


@pytest.mark.parametrize(
    ("path", "body", "name"),
    [
        (PROJECTS, '{"name":"a","name":"b"}', "name"),
        (PROJECTS, '{"name":"a","n\\u0061me":"a"}', "name"),
        (
            KEYS,
            '{"name":"a","limits":[{"of":"requests","amount":1,"amount":9,"per":"day"}]}',
            "amount",
        ),
        (KEYS, '{"name":"a","scopes":["usage"],"scopes":["keys"]}', "scopes"),
        (EXCHANGE, '{"audience":"a","externalUserId":"a","externalUserId":"b"}', "externalUserId"),
        (OAUTH, '{"grant_type":"x","client_id":"a","client_id":"b"}', "client_id"),
        (OAUTH, "grant_type=x&client_id=a&client_id=b", "client_id"),
    ],
)
def test_fields(admin: httpx.Client, path: str, body: str, name: str) -> None:
    """A repeated field is refused by name, at any depth of the body."""
    answer = admin.post(path, content=body, headers={"content-type": kind_of(body)})
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert (error["param"], error["message"]) == (name, f'"{name}" is there twice. Send it once.')


def kind_of(body: str) -> str:
    return "application/json" if body[0] == "{" else "application/x-www-form-urlencoded"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (f"{PROJECTS}?limit=1&limit=2", "limit"),
        (f"{PROJECTS}?after=a&limit=1&after=b", "after"),
        (f"{KEYS}?limit=1&limit=1", "limit"),
        (
            "/v1/organization/audit_logs?effective_at%5Bgte%5D=1&effective_at[gte]=2",
            "effective_at[gte]",
        ),
        ("/v1/organization/costs?start_time=1&start_time=2", "start_time"),
        ("/v1/models?tag=a&tag=b", "tag"),
        ("/v1/embeddings/models?model=a&model=b", "model"),
    ],
)
def test_parameters(admin: httpx.Client, path: str, name: str) -> None:
    """A repeated query parameter is refused by name."""
    answer = admin.get(path)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["param"] == name
    assert "is there twice. Send " in error["message"]


@pytest.mark.parametrize(
    ("path", "name", "cure"),
    [
        (f"{PROJECTS}?nonsense=3", "nonsense", "Leave it out."),
        (f"{AUDIT}?actor_ids=a", "actor_ids", 'Did you mean "actor_ids[]"?'),
        (f"{AUDIT}?after=nope", "after", "or leave it out."),
    ],
)
def test_parameters_that_do_not_exist(admin: httpx.Client, path: str, name: str, cure: str) -> None:
    """An unknown parameter or cursor is refused, since the list would not be filtered by it."""
    error = admin.get(path).json()["error"]
    assert error["param"] == name
    assert error["message"].endswith(cure)


def test_pages_of_the_audit_log(admin: httpx.Client) -> None:
    """A page starts after the last event of the previous page."""
    first = admin.get(AUDIT, params={"limit": 1}).json()
    second = admin.get(AUDIT, params={"limit": 1, "after": first["last_id"]})
    assert second.status_code == 200
    assert first["last_id"] not in {act["id"] for act in second.json()["data"]}


def test_an_end_user_that_stands_for_nobody(admin: httpx.Client) -> None:
    """No end user can be called `*`, which an operator could mistake for all end users."""
    path = f"{PROJECTS}/proj_default/end_users"
    answer = admin.post(path, json={"id": "*", "blocked": True})
    assert answer.status_code == 400
    assert "user_limits" in answer.json()["error"]["message"]


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_health_checks_by_head(gateway: Gateway, path: str) -> None:
    """A HEAD request gets the status of a health check without a body."""
    answer = httpx.head(f"{gateway.url}{path}", timeout=30)
    assert (answer.status_code, answer.content) == (200, b"")


@pytest.mark.parametrize(
    "path",
    [
        "/v1/organization/audit_logs?project_ids[]=a&project_ids[]=b",
        "/v1/organization/costs?start_time=1&group_by=model&group_by=project_id",
        "/v1/organization/costs?start_time=1&project_ids=a&project_ids=b",
    ],
)
def test_lists(admin: httpx.Client, path: str) -> None:
    """A parameter that is a list may be repeated."""
    assert admin.get(path).status_code == 200


def test_the_data_plane(gateway: Gateway) -> None:
    """The data plane's only parameter is refused if it is repeated."""
    with gateway.client() as client:
        answer = client.post("/v1/embeddings?dry_run=true&dry_run=false", json={"input": "a"})
    assert answer.status_code == 400
    assert "twice" in answer.json()["error"]["message"]


ODD = ["1e999", "-1e999", "1" * 400, "1" * 5000, "NaN", "Infinity", "01", "true", '"\\ud800"']
ODD += ['"\\u0000"', "[" * 5000, "[" * 5000 + "]" * 5000, '{"a":' * 5000, "", " ", '"', "{}{}"]


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: odd[:12])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        (PROJECTS, "%s"),
        (PROJECTS, '{"name":%s}'),
        (KEYS, '{"name":"a","expires_days":%s}'),
        (KEYS, '{"name":"a","limits":[{"of":"requests","per":"day","amount":%s}]}'),
        (KEYS, '{"name":"a","budgets":[{"amount_usd":%s,"per":"day"}]}'),
        (EXCHANGE, "%s"),
        (EXCHANGE, '{"audience":"embedway","externalUserId":"a","expiresIn":%s}'),
        (OAUTH, "%s"),
        (OAUTH, '{"grant_type":%s}'),
    ],
)
def test_odd_json(admin: httpx.Client, path: str, body: str, odd: str) -> None:
    """Any odd JSON gets a short client error in the usual form."""
    answer = admin.post(path, content=body % odd, headers={"content-type": "application/json"})
    assert 400 <= answer.status_code < 500, answer.text
    error = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert len(error["message"]) < 1000
