"""What the admin API says if the database stops answering during a change."""

import pytest
from fastapi import FastAPI
from sqlalchemy.exc import OperationalError
from starlette.testclient import TestClient

from embedway.admin import errors


@pytest.mark.parametrize(
    ("method", "broke", "retried"),
    [("POST", True, False), ("POST", False, True), ("DELETE", True, False), ("GET", True, True)],
)
def test_a_change_in_doubt_is_not_tried_again(method: str, broke: bool, retried: bool) -> None:
    """Clients retry by themselves only if that cannot make a change twice."""
    app = FastAPI()
    errors.install(app)

    @app.api_route("/change", methods=[method])
    def change() -> None:
        raise OperationalError("COMMIT", {}, OSError("closed"), connection_invalidated=broke)

    with TestClient(app) as client:
        answer = client.request(method, "/change")
    assert answer.status_code == 503
    assert ("retry-after" in answer.headers) == retried
    assert answer.headers.get("x-should-retry") == (None if retried else "false")
    message = answer.json()["error"]["message"]
    assert ("may have been made" in message) == (not retried)
