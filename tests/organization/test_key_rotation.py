"""Rotated keys: a new secret for the same key, while the old secret works for a while."""

import asyncio
import json

import pytest
from conftest import Gateway
from sqlalchemy import Engine
from starlette.testclient import TestClient
from test_organization import ADMIN, NOW_MS, PEPPER, House

from embedway.auth import exchange
from embedway.auth.authenticator import Authenticator
from embedway.auth.exchange import TokenRequest
from embedway.auth.tokens import AUDIENCE, GatewayTokens
from embedway.core.budget import Budget
from embedway.core.errors import Forbidden, InvalidKey, InvalidRequest, NotFound
from embedway.core.keys import Key
from embedway.core.limit import Limit
from embedway.organization.directory import Directory

HOUR_MS = 3_600_000


@pytest.fixture
def house(any_database: Engine) -> House:
    """An organization in each kind of database."""
    return House(any_database)


def rotated(house: House, key: Key, grace_ms: int = HOUR_MS) -> tuple[str, Key]:
    return house.acts.rotate_key(ADMIN, key.id, project_id=key.project_id, grace_ms=grace_ms)


def key_of(house: House, secret: str) -> Key:
    """Return the key that this secret opens now."""
    return asyncio.run(house.caller(f"Bearer {secret}")).keys[0]


def refused(house: House, secret: str) -> str:
    with pytest.raises(InvalidKey) as raised:
        key_of(house, secret)
    return raised.value.message


def test_both_secrets_work_until_the_grace_is_over(house: House) -> None:
    """Both secrets open the same key with the same limits and budgets, until the old one ends."""
    amounts = {
        "limits": (Limit(of="requests", amount=5, per="day"),),
        "budgets": (Budget(amount_nano_usd=10**9, per="month"),),
    }
    old, key = house.key(house.project(), scopes=("embeddings",), models=("m",), **amounts)
    new, changed = rotated(house, key)
    assert changed.hint == new[: len(changed.hint)]
    for secret in (old, new):
        opened = key_of(house, secret)
        assert (opened.id, opened.project_id, opened.models) == (key.id, key.project_id, ("m",))
        assert (opened.limits, opened.budgets) == (amounts["limits"], amounts["budgets"])
    house.clock.now_ms += HOUR_MS - 1
    assert key_of(house, old).id == key.id
    house.clock.now_ms += 1
    assert "old secret" in refused(house, old)
    assert key_of(house, new).id == key.id
    assert house.done(actions=["api_key.rotated"]) == [("cli:tests", "api_key.rotated", key.id)]


def test_no_grace(house: House) -> None:
    """Without grace the old secret stops working at once."""
    old, key = house.key(house.project())
    new, _ = rotated(house, key, 0)
    assert "does not exist" in refused(house, old)
    assert key_of(house, new).id == key.id


def test_rotated_twice(house: House) -> None:
    """Of several old secrets, only the latest works."""
    first, key = house.key(house.project())
    second, _ = rotated(house, key)
    third, _ = rotated(house, key)
    assert "does not exist" in refused(house, first)
    assert key_of(house, second).id == key_of(house, third).id == key.id


def test_revoking_ends_both_secrets(house: House) -> None:
    """Neither secret opens a revoked key, and the key cannot be rotated."""
    old, key = house.key(house.project())
    new, _ = rotated(house, key)
    house.acts.revoke_key(ADMIN, key.id, project_id=key.project_id)
    assert "revoked" in refused(house, old)
    assert "revoked" in refused(house, new)
    with pytest.raises(InvalidRequest, match="revoked"):
        rotated(house, key)


def test_a_key_that_expires_first(house: House) -> None:
    """A grace period does not extend the key's own expiry."""
    old, key = house.key(house.project(), expires_ms=NOW_MS + 10)
    rotated(house, key)
    house.clock.now_ms += 10
    assert "expired" in refused(house, old)


def test_who_rotates(house: House) -> None:
    """A key with the scope `keys` can rotate only the keys it issued."""
    project = house.project()
    secret, issuer = house.key(project, scopes=("embeddings", "on_behalf_of", "keys"))
    actor = house.actor(secret)
    _, issued = house.key(project, by=actor)
    new, _ = house.acts.rotate_key(actor, issued.id, project_id=project, grace_ms=0)
    assert key_of(house, new).issued_by == issuer.id
    for other in (issuer, house.key(project)[1]):
        with pytest.raises(NotFound):
            house.acts.rotate_key(actor, other.id, project_id=project, grace_ms=0)


def test_an_old_secret_changes_nothing(house: House) -> None:
    """An old secret in its grace period cannot create keys, which would outlive it."""
    project = house.project()
    old, key = house.key(project, scopes=("keys", "embeddings"))
    new, _ = rotated(house, key)
    with pytest.raises(Forbidden, match="old secret"):
        house.key(project, by=house.actor(old))
    assert house.key(project, by=house.actor(new))[1].issued_by == key.id


def test_tokens_end_with_the_secret_they_were_made_with(house: House) -> None:
    """A token works no longer than the secret it was made with."""
    tokens = GatewayTokens(pepper=PEPPER)

    def caller(credential: str):
        authenticator = Authenticator(
            Directory(house.engine), pepper=PEPPER, now_ms=house.clock, tokens=tokens
        )
        return asyncio.run(authenticator.authenticate(f"Bearer {credential}".encode(), None))

    def token(secret: str) -> str:
        wanted = TokenRequest(audience=AUDIENCE, end_user="ada", lifetime_s=86_400)
        return exchange.issue_for_end_user(
            caller(secret), wanted, tokens=tokens, now_ms=house.clock.now_ms
        ).token

    old, key = house.key(house.project(), scopes=("embeddings", "tokens"))
    before = token(old)
    new, _ = rotated(house, key)
    meanwhile, after = token(old), token(new)
    assert {caller(each).key_id for each in (before, meanwhile, after)} == {key.id}
    house.clock.now_ms += HOUR_MS
    for each in (before, meanwhile):
        with pytest.raises(InvalidKey):
            caller(each)
    assert caller(after).key_id == key.id
    rotated(house, key, 0)
    with pytest.raises(InvalidKey, match="old secret"):
        caller(after)


def test_over_http(house: House) -> None:
    """The admin API rotates projects' keys and admin keys, with 24 hours of grace by default."""
    project = house.project()
    old, key = house.key(project)
    admin = {"authorization": f"Bearer {house.admin_key()}"}
    with TestClient(house.app, headers=admin) as client:
        path = f"/v1/organization/projects/{project}/api_keys/{key.id}"
        made = client.post(f"{path}/rotate", json={}).json()
        assert key_of(house, old).id == key_of(house, made["value"]).id == made["id"] == key.id
        ends_s = NOW_MS // 1000 + 86_400
        assert made["previous_expires_at"] == ends_s
        shown = client.get(path).json()
        assert (shown["previous_expires_at"], "value" in shown) == (ends_s, False)
        assert made["value"].startswith(shown["redacted_value"].removesuffix("..."))
        for wrong in (-1, 91 * 86_400, "24h", None):
            said = client.post(f"{path}/rotate", json={"grace_seconds": wrong})
            assert said.status_code == 400
            assert said.json()["error"]["param"] == "grace_seconds"

        listed = client.get("/v1/organization/admin_api_keys").json()["data"]
        path = f"/v1/organization/admin_api_keys/{listed[0]['id']}/rotate"
        value = client.post(path, json={"grace_seconds": 0}).json()["value"]
        assert client.get("/v1/organization/projects").status_code == 401
        admin = {"authorization": f"Bearer {value}"}
        log = client.get("/v1/organization/audit_logs", headers=admin).json()["data"]
    assert [each["type"] for each in log[:2]] == ["api_key.rotated"] * 2
    assert log[1]["api_key.rotated"]["data"] == {"previous_expires_at": ends_s}


def test_what_was_used_stays_used(gateway: Gateway) -> None:
    """On a running gateway both secrets share one limit."""
    made = gateway.new_key("rotated", "--limit", "requests=2/day")
    answers = [ask(gateway, made["key"])]
    done = gateway.cli("keys", "rotate", made["id"], "--json")
    again = json.loads(done.stdout)
    answers += [ask(gateway, again["key"]), ask(gateway, again["key"]), ask(gateway, made["key"])]
    assert answers == [200, 200, 429, 429]


def ask(gateway: Gateway, secret: str) -> int:
    headers = {"authorization": f"Bearer {secret}"}
    with gateway.client(headers=headers) as client:
        return client.post("/v1/embeddings", json={"input": "a"}).status_code
