"""Every answer of the control plane has a request id, errors too."""

import pytest
from conftest import Gateway


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/models", 200),
        ("GET", "/v1/models/nope", 404),
        ("GET", "/v1/organization/projects", 403),
        ("GET", "/v1/organization/projects?nope=1", 400),
        ("POST", "/api/v1/authentication/api-key/exchange-token", 400),
        ("GET", "/nowhere", 404),
        ("DELETE", "/v1/models", 405),
    ],
)
def test_every_answer_has_one(gateway: Gateway, method: str, path: str, status: int) -> None:
    """It is the client's own if that is well-formed, and otherwise a new one."""
    with gateway.client() as client:
        own = client.request(method, path, headers={"x-request-id": "mine"})
        new = client.request(method, path, headers={"x-request-id": "not\tplain"})
    assert (own.status_code, own.headers["x-request-id"]) == (status, "mine")
    assert new.headers["x-request-id"].startswith("req_")
