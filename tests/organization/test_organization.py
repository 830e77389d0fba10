"""Projects, keys, end users and the audit log: who may do what, by API and command line."""

import asyncio
import itertools
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from decimal import Decimal
from typing import Annotated, Any
from urllib.parse import quote

import httpx
import msgspec
import openai
import pytest
import uvicorn
from conftest import free_port
from fastapi import Depends, FastAPI, Header
from hypothesis import given
from hypothesis import strategies as st
from raw_http import until
from sqlalchemy import Engine
from starlette.testclient import TestClient
from writing import write

from embedway.admin import errors, organization
from embedway.admin.amounts import BudgetBody
from embedway.api.admission import Admission
from embedway.api.body_gate import BodyGate
from embedway.auth.authenticator import Authenticator
from embedway.cli import limits_and_budgets
from embedway.core.budget import MAX_NANO_USD, Budget, BudgetPer
from embedway.core.configuration_change import ConfigurationChange
from embedway.core.errors import Forbidden, InvalidKey, InvalidRequest, NotFound
from embedway.core.keys import SCOPES, USUAL_SCOPES, Caller, Key, Scope
from embedway.core.limit import MAX_AMOUNT, Limit, LimitPeriod, LimitUnit
from embedway.core.project import DEFAULT_PROJECT
from embedway.core.request import MAX_ATTRIBUTION_CHARACTERS as LONGEST
from embedway.core.usage import UsageRecord
from embedway.ledger.ledger import Ledger
from embedway.organization import key_secret as secrets
from embedway.organization.actors import Actor
from embedway.organization.audit_store import AuditFilter
from embedway.organization.directory import Directory
from embedway.organization.keys import KeyBootstrap
from embedway.organization.service import AdminService
from embedway.storage import database

PEPPER = b"p" * 32
NOW_MS = 1_790_000_000_000
ADMIN = Actor.at_command_line("tests")
ISSUED: tuple[Scope, ...] = ("embeddings", "on_behalf_of", "tokens", "usage")


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now_ms = NOW_MS

    def __call__(self) -> int:
        return self.now_ms


class House:
    """An organization in a database, and the admin API for it."""

    def __init__(self, engine: Engine) -> None:
        self.clock = Clock()
        self.engine = engine
        self.acts = AdminService(engine, pepper=PEPPER, now_ms=self.clock)
        self.app = FastAPI()
        errors.install(self.app)

        async def caller(authorization: Annotated[str | None, Header()] = None) -> Caller:
            return await self.caller(authorization)

        async def reload(**_: object) -> list[ConfigurationChange]:
            return []  # there is no gateway here

        for routes in organization.organization_routers(
            self.acts, caller=Depends(caller), now_ms=self.clock, reload=reload
        ):
            self.app.include_router(routes)
        admission = Admission(max_requests=64, max_bytes=2**24)
        self.app.add_middleware(
            BodyGate, authenticator=self.authenticator(), admission=admission, timeout_s=30
        )

    async def caller(self, authorization: str | None) -> Caller:
        """Return the sender of a request, read from the store anew."""
        return await self.authenticator().authenticate(
            authorization.encode() if authorization else None, None
        )

    def authenticator(self) -> Authenticator:
        """Return a new authenticator with empty caches."""
        return Authenticator(Directory(self.engine), pepper=PEPPER, now_ms=self.clock)

    def actor(self, secret: str) -> Actor:
        """Return the actor who uses this key."""
        caller = asyncio.run(self.caller(f"Bearer {secret}"))
        return Actor.of_request(caller, request_id="req_1")

    def admin_key(self) -> str:
        """Create an admin key and return its secret."""
        return self.acts.create_key(ADMIN, project_id=None, changes={"name": "admin"})[0]

    def project(self, name: str = "p", **changes: Any) -> str:
        """Create a project and return its id."""
        return self.acts.create_project(ADMIN, {"name": name, **changes}).id

    def key(self, project_id: str, *, by: Actor = ADMIN, **changes: Any) -> tuple[str, Key]:
        """Create a key and return its secret and record."""
        changes = {"name": "k", **changes}
        return self.acts.create_key(by, project_id=project_id, changes=changes)

    def done(self, **wanted: Any) -> list[tuple[str, str, str]]:
        """Return actor, action and target of each audit event, oldest first."""
        acts = self.acts.list_audit_events(
            ADMIN, AuditFilter(**wanted), after=None, limit=1000
        ).items
        return [(each.actor, each.action, each.target) for each in reversed(acts)]


@pytest.fixture
def house(any_database: Engine) -> House:
    """An organization in each kind of database."""
    return House(any_database)


@pytest.fixture
def sqlite_house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """An organization for tests that do not depend on the kind of database."""
    engine = database.connect(tmp_path_factory.mktemp("house") / "test.db")
    yield House(engine)
    engine.dispose()


@contextmanager
def asking(house: House, secret: str) -> Iterator[TestClient]:
    """Return a client with this key."""
    headers = {"authorization": f"Bearer {secret}"}
    with TestClient(house.app, headers=headers, raise_server_exceptions=False) as client:
        yield client


@contextmanager
def serving(house: House) -> Iterator[str]:
    """Serve the admin API on a socket and return its base URL."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(house.app, port=port, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    until(lambda: server.started)
    yield f"http://127.0.0.1:{port}/v1"
    server.should_exit = True
    thread.join(20)


def problem(answer: httpx.Response) -> dict[str, Any]:
    """Return a response's error, after checking that it has the contract's form."""
    assert set(answer.json()) == {"error"}
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


# OpenAI's client against the routes


def test_openai_client(house: House) -> None:
    """OpenAI's own client creates, lists, changes and archives objects through its routes."""
    secret = house.admin_key()
    with (
        serving(house) as url,
        openai.OpenAI(base_url=url, api_key="none", admin_api_key=secret, max_retries=0) as client,
    ):
        organisation = client.admin.organization
        made = organisation.projects.create(name="web")
        assert (made.object, made.name, made.status) == ("organization.project", "web", "active")
        assert made.created_at == NOW_MS // 1000
        assert organisation.projects.retrieve(made.id).id == made.id
        assert organisation.projects.update(made.id, name="shop").name == "shop"
        for n in range(4):
            organisation.projects.create(name=f"more {n}")
        listed = [each.id for each in organisation.projects.list(limit=2)]
        assert len(listed) == len(set(listed)) == 6
        secret, key = house.key(made.id)
        (shown,) = organisation.projects.api_keys.list(made.id).data
        assert (shown.id, shown.name, shown.owner_project_access) == (key.id, "k", "active")
        assert shown.owner.service_account.id == key.id
        assert shown.redacted_value.removesuffix("...") in secret
        changed = organisation.projects.api_keys.update(
            key.id, project_id=made.id, scopes=["usage"], expires_in_seconds=60
        )
        assert changed.expires_at == NOW_MS // 1000 + 60
        gone = organisation.projects.api_keys.delete(key.id, project_id=made.id)
        assert (gone.id, gone.deleted) == (key.id, True)
        assert organisation.projects.api_keys.list(made.id).data == []
        admin = organisation.admin_api_keys.create(name="second", expires_in_seconds=3600)
        assert house.actor(admin.value).caller.scopes == {"admin"}
        assert admin.owner.id == admin.id
        newest_first = [each.id for each in organisation.admin_api_keys.list(order="desc")]
        assert set(newest_first) > {admin.id}
        assert organisation.admin_api_keys.retrieve(admin.id).name == "second"
        assert organisation.admin_api_keys.delete(admin.id).deleted
        archived = organisation.projects.archive(made.id)
        assert (archived.status, archived.archived_at) == ("archived", NOW_MS // 1000)
        assert made.id not in [each.id for each in organisation.projects.list()]
        assert made.id in [each.id for each in organisation.projects.list(include_archived=True)]
        logged = list(
            organisation.audit_logs.list(
                event_types=["project.created", "project.updated", "project.archived"],
                project_ids=[made.id],
                effective_at={"gte": NOW_MS // 1000, "lt": NOW_MS // 1000 + 1},
                limit=1,
            )
        )
        assert [each.type for each in logged] == [
            "project.archived", "project.updated", "project.created",
        ]  # fmt: skip
        assert logged[1].project_updated.id == made.id
        assert logged[2].actor.api_key.id == logged[0].actor.api_key.id
        assert list(organisation.audit_logs.list(effective_at={"gt": NOW_MS // 1000})) == []
        with pytest.raises(openai.NotFoundError):
            organisation.projects.retrieve("proj_none")
        with pytest.raises(openai.BadRequestError, match="geography"):
            organisation.projects.create(name="x", geography="eu")


def test_what_is_ours_in_the_shapes(house: House) -> None:
    """Limits, budgets and other fields come back as they were sent; null removes them."""
    sent = {
        "models": ["auto", "bge-m3"],
        "providers": ["openai"],
        "eu_native": True,
        "zero_data_retention": True,
        "allow_quantization": False,
        "limits": [{"of": "requests", "amount": 600, "per": "minute"}],
        "budgets": [{"amount_usd": 25.5, "per": "month", "alerts": [80, 100]}],
        "user_limits": [{"of": "tokens", "amount": 5, "per": "day"}],
        "user_budgets": [{"amount_usd": 0.000000001, "per": "total", "alerts": []}],
    }
    with asking(house, house.admin_key()) as client:
        made = client.post("/v1/organization/projects", json={"name": "web", **sent}).json()
        assert sent.items() <= made.items()
        path = f"/v1/organization/projects/{made['id']}"
        kept = client.post(path, json={"name": "other"}).json()
        assert sent.items() <= kept.items()
        emptied = client.post(path, json={"limits": None, "budgets": [], "models": None}).json()
        assert (emptied["limits"], emptied["budgets"], emptied["models"]) == ([], [], None)
        assert emptied["user_limits"] == sent["user_limits"]
        fields = {name: sent[name] for name in ("models", "providers", "limits", "budgets")}
        key = client.post(f"{path}/api_keys", json={"name": "k", "scopes": ["usage"], **fields})
        assert ({"scopes": ["usage"]} | fields).items() <= key.json().items()
        again = client.get(f"{path}/api_keys/{key.json()['id']}").json()
        assert again == {name: value for name, value in key.json().items() if name != "value"}


def test_alerts_that_are_left_out(house: House) -> None:
    """A change to a budget without alerts, or without an amount, keeps the old ones."""
    with asking(house, house.admin_key()) as client:
        budgets = [{"amount_usd": 25, "per": "month", "alerts": [80]}]
        sent = {"name": "web", "budgets": budgets, "user_budgets": budgets}
        project = client.post("/v1/organization/projects", json=sent).json()
        path = f"/v1/organization/projects/{project['id']}"

        def after(budgets: list[dict[str, Any]], path: str = path) -> list[dict[str, Any]]:
            return client.post(path, json={"budgets": budgets}).json()["budgets"]

        month = {"amount_usd": 50, "per": "month"}
        assert after([month, {"amount_usd": 1, "per": "day"}]) == [
            month | {"alerts": [80]}, {"amount_usd": 1, "per": "day", "alerts": []},
        ]  # fmt: skip
        assert after([{"per": "month", "alerts": [90, 5]}]) == [month | {"alerts": [5, 90]}]
        assert after([month | {"alerts": []}]) == [month | {"alerts": []}]
        user = f"{path}/end_users/ann"
        assert after([month | {"alerts": [7]}], user) == [month | {"alerts": [7]}]
        assert after([{"per": "month", "amount_usd": 2}], user)[0]["alerts"] == [7]
        assert client.get(path).json()["user_budgets"] == project["user_budgets"]
        refused = client.post(path, json={"budgets": [{"per": "total"}]})
        assert (refused.status_code, problem(refused)["param"]) == (400, "budgets")
        assert "'amount_usd'" in problem(refused)["message"]


def test_what_is_left(house: House) -> None:
    """Each budget shows what is spent and left of it, and when its next window begins."""
    budgets = (Budget(amount_nano_usd=5 * 10**9, per="day"),)
    total = (Budget(amount_nano_usd=10**9, per="total"),)
    project = house.project(budgets=budgets, user_budgets=budgets)
    issuer, issuing = house.key(project, scopes=("keys", "embeddings"), budgets=total)
    _, issued = house.key(project, by=house.actor(issuer), scopes=("embeddings",))
    house.acts.set_end_user(ADMIN, project, "ann", {"budgets": total})
    ledger = Ledger(house.engine)

    async def spend() -> None:
        lines = [
            usage_line(number, project, key, user, at_ms)
            for number, (key, user, at_ms) in enumerate((
                (issuing.id, "ann", NOW_MS), (issued.id, "bob", NOW_MS),
                (issued.id, "", NOW_MS), (issued.id, "bob", NOW_MS - 86_400_000),
            ))
        ]  # fmt: skip
        await asyncio.gather(*(write(ledger, [each]) for each in lines))

    asyncio.run(spend())
    ledger.close()
    tomorrow = (NOW_MS // 86_400_000 + 1) * 86_400

    def left(per: str, amount: float, spent: float) -> list[dict[str, Any]]:
        return [
            {"per": per, "amount_usd": amount, "spent_usd": spent,
             "left_usd": max(0, amount - spent), "resets_at": tomorrow if per == "day" else None}
        ]  # fmt: skip

    with asking(house, house.admin_key()) as client:
        path = f"/v1/organization/projects/{project}"
        shown = client.get(path).json()
        assert shown["spending"] == left("day", 5, 3)
        assert shown in client.get("/v1/organization/projects").json()["data"]
        keys = {each["id"]: each for each in client.get(f"{path}/api_keys").json()["data"]}
        assert keys[issuing.id]["spending"] == left("total", 1, 4)
        assert keys[issued.id]["spending"] == []
        assert client.get(f"{path}/api_keys/{issuing.id}").json() == keys[issuing.id]
        ann, bob = (client.get(f"{path}/end_users/{each}").json() for each in ("ann", "bob"))
        assert (ann["spending"], ann["created_at"]) == (left("total", 1, 1), NOW_MS // 1000)
        assert (bob["spending"], bob["created_at"]) == (left("day", 5, 1), None)
        assert (bob["budgets"], bob["blocked"]) == (None, False)
        assert client.get(f"{path}/end_users", params={"id": "bob"}).json()["data"] == [bob]
        assert client.get(f"{path}/end_users").json()["data"] == [ann]
        assert client.get(f"{path}/end_users/none").json()["spending"] == left("day", 5, 0)
    with asking(house, issuer) as client:
        [own] = client.get(f"{path}/api_keys").json()["data"]
        assert (own["id"], own["spending"]) == (issued.id, [])


def usage_line(number: int, project: str, key: str, user: str, at_ms: int) -> UsageRecord:
    """A usage record of a request that cost a dollar."""
    return UsageRecord(
        id=f"embd_{number}", at_ms=at_ms, request_id="req", project_id=project, key_id=key,
        on_behalf_of=None, user=user, metadata={}, model="m", provider="p", items=1, tokens=1,
        cost_nano_usd=10**9, upstream_cost_nano_usd=0, calls=1, failed_calls=0, latency_us=1,
        status=200,
    )  # fmt: skip


# Who may do what


def routes(house: House) -> list[tuple[str, str]]:
    """Return the method and path of every route of the API."""
    schema = house.app.openapi()
    return [(method, path) for path, methods in schema["paths"].items() for method in methods]


NAMED = {"name": "x"}
BODIES = {"projects": NAMED, "api_keys": NAMED, "admin_api_keys": NAMED, "end_users": {"id": "x"}}


def test_strangers_and_plain_keys(sqlite_house: House) -> None:
    """Without a key, or with one that has neither right, every route refuses."""
    house = sqlite_house
    project = house.project()
    secret, key = house.key(project, scopes=ISSUED)
    before = house.done()
    for method, template in routes(house):
        path = template.format(project_id=project, key_id=key.id, end_user_id="u")
        body = BODIES.get(path.rpartition("/")[2], {}) if method == "post" else None
        with TestClient(house.app) as client:
            assert client.request(method, path, json=body).status_code == 401, path
        with asking(house, secret) as client:
            answer = client.request(method, path, json=body)
            assert answer.status_code == 403, (method, path, answer.text)
            assert problem(answer)["code"] == "insufficient_permissions"
    assert house.done() == before


def test_a_key_that_issues_keys(house: House) -> None:
    """A key with the scope `keys` only creates keys of its project, and lists and revokes those."""
    mine, other = house.project("mine"), house.project("other")
    secret, issuer = house.key(mine, scopes=(*ISSUED, "keys"))
    _, sister = house.key(mine)
    _, stranger = house.key(other)
    allowed = {"get", "post", "delete"}
    with asking(house, secret) as client:
        keys = f"/v1/organization/projects/{mine}/api_keys"
        made = client.post(keys, json={"name": "child", "scopes": ["usage"]}).json()
        assert made["issued_by"] == issuer.id
        assert [each["id"] for each in client.get(keys).json()["data"]] == [made["id"]]
        assert client.get(f"{keys}/{made['id']}").json()["name"] == "child"
        unknown = problem(client.get(f"{keys}/key_none"))
        for id in (issuer.id, sister.id, stranger.id):
            for method in ("get", "delete"):
                answer = client.request(method, f"{keys}/{id}")
                assert answer.status_code == 404
                assert problem(answer)["message"] == unknown["message"].replace("key_none", id)
        for elsewhere in (other, "proj_none", DEFAULT_PROJECT):
            for method, path in (("get", ""), ("post", ""), ("get", f"/{stranger.id}")):
                answer = client.request(
                    method,
                    f"/v1/organization/projects/{elsewhere}/api_keys{path}",
                    json={"name": "x"} if method == "post" else None,
                )
                assert answer.status_code == 404
                assert f"'{elsewhere}'" in problem(answer)["message"]
        assert client.post(f"{keys}/{made['id']}", json={"name": "y"}).status_code == 403
        assert client.delete(f"{keys}/{made['id']}").json()["deleted"] is True
        assert client.delete(f"{keys}/{made['id']}").status_code == 404
        for method, template in routes(house):
            if method in allowed and "/projects/{project_id}/api_keys" not in template:
                path = template.format(project_id=mine, key_id=issuer.id, end_user_id="u")
                body = BODIES.get(path.rpartition("/")[2], {}) if method == "post" else None
                assert client.request(method, path, json=body).status_code == 403, path
    assert house.done(actors=[issuer.id]) == [
        (issuer.id, "api_key.created", made["id"]),
        (issuer.id, "api_key.deleted", made["id"]),
    ]


def test_revoking_the_issuer(house: House) -> None:
    """If a key stops working, so do the keys it issued, even if they were looked up before."""
    project = house.project()
    secret, issuer = house.key(project, scopes=("embeddings", "keys"))
    actor = house.actor(secret)
    child, _ = house.key(project, by=actor, scopes=("embeddings",))
    assert house.actor(child).caller.scopes == {"embeddings"}
    house.acts.revoke_key(ADMIN, issuer.id, project_id=project)
    with pytest.raises(InvalidKey):
        house.actor(child)
    with pytest.raises(Forbidden):
        house.key(project, by=actor, scopes=("embeddings",))


def test_a_narrowed_issuer(house: House) -> None:
    """A key that lost a scope cannot grant it, even if its caller was looked up before."""
    project = house.project()
    secret, issuer = house.key(project, scopes=("embeddings", "usage", "keys"))
    actor = house.actor(secret)
    changes = {"scopes": ("embeddings", "keys"), "models": ("auto",)}
    house.acts.update_key(ADMIN, issuer.id, project_id=project, changes=changes)
    with pytest.raises(Forbidden, match="usage"):
        house.key(project, by=actor, scopes=("usage",), models=("auto",))
    with pytest.raises(Forbidden, match="models"):
        house.key(project, by=actor, scopes=("embeddings",))
    house.acts.update_key(ADMIN, issuer.id, project_id=project, changes={"scopes": ("embeddings",)})
    with pytest.raises(Forbidden):
        house.key(project, by=actor, scopes=("embeddings",), models=("auto",))


def test_tokens_have_no_more_than_they_say(house: House) -> None:
    """A token issues keys with its own rights, not its key's. An end user's token issues none."""
    project = house.project()
    secret, _ = house.key(project, scopes=("embeddings", "usage", "keys"))
    caller = house.actor(secret).caller
    assert caller is not None
    narrow = msgspec.structs.replace(caller, scopes=frozenset({"keys", "usage"}))
    actor = Actor.of_request(narrow, request_id="r")
    house.key(project, by=actor, scopes=("usage",))
    with pytest.raises(Forbidden, match="embeddings"):
        house.key(project, by=actor, scopes=("embeddings",))
    user = msgspec.structs.replace(caller, on_behalf_of="alice")
    with pytest.raises(Forbidden):
        house.key(project, by=Actor.of_request(user, request_id="r"), scopes=("usage",))
    rule_all = Caller(key_id="k", project=None, scopes=frozenset({"admin"}), on_behalf_of="alice")
    with pytest.raises(Forbidden):
        house.acts.list_projects(Actor.of_request(rule_all, request_id="r"), after=None, limit=1)
    outside = Caller(key_id="issuer:x", project=caller.project, scopes=frozenset({"keys"}))
    with pytest.raises(Forbidden):
        house.key(project, by=Actor.of_request(outside, request_id="r"), scopes=("usage",))


def subsets(values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    """Return all subsets, including the empty one."""
    sizes = range(len(values) + 1)
    return [each for n in sizes for each in itertools.combinations(values, n)]


def within(wanted: tuple[Any, ...] | None, allowed: tuple[Any, ...] | None) -> bool:
    """Return whether one list of names allows nothing beyond another."""
    return allowed is None or (wanted is not None and set(wanted) <= set(allowed))


def test_issued_scopes_are_fewer(sqlite_house: House) -> None:
    """For all scopes of an issuer, exactly the requests for no more than these succeed."""
    house = sqlite_house
    project = house.project()
    for has in subsets(ISSUED):
        secret, _ = house.key(project, scopes=(*has, "keys"))
        actor = house.actor(secret)
        for wanted in [*subsets(ISSUED)[1:], ("keys",), ("admin",), ("usage", "keys"), SCOPES]:
            if set(wanted) <= set(has):
                assert house.key(project, by=actor, scopes=wanted)[1].scopes == wanted
            else:
                with pytest.raises(Forbidden):
                    house.key(project, by=actor, scopes=wanted)


def test_issued_scopes_that_are_left_out(sqlite_house: House) -> None:
    """Without `scopes`, an issued key has those of the usual scopes that its issuer has."""
    house = sqlite_house
    project = house.project()
    for has in subsets(ISSUED):
        secret, _ = house.key(project, scopes=(*has, "keys"))
        usual = tuple(each for each in USUAL_SCOPES if each in has)
        with asking(house, secret) as client:
            path = f"/v1/organization/projects/{project}/api_keys"
            answer = client.post(path, json={"name": "x"})
            if usual:
                assert answer.json()["scopes"] == list(usual)
            else:
                assert answer.status_code == 403
                assert problem(answer)["param"] == "scopes"
                assert "Send the scopes" in problem(answer)["message"]


@pytest.mark.parametrize("field", ["models", "providers"])
def test_issued_names_are_fewer(sqlite_house: House, field: str) -> None:
    """Models and providers of an issued key must be among its issuer's; `any` is not."""
    house = sqlite_house
    project = house.project()
    lists = [None, *subsets(("a", "b", "c"))]
    for has in lists:
        if has == ():
            continue
        secret, _ = house.key(project, scopes=("embeddings", "keys"), **{field: has})
        actor = house.actor(secret)
        for names in lists:
            wanted = {"scopes": ("embeddings",), field: names}
            if names == ():
                with pytest.raises(InvalidRequest):
                    house.key(project, by=actor, **wanted)
            elif within(names, has):
                house.key(project, by=actor, **wanted)
            else:
                with pytest.raises(Forbidden):
                    house.key(project, by=actor, **wanted)


def test_narrowed_later(sqlite_house: House) -> None:
    """However an issuer is changed, the keys it issued before may do no more than it may."""
    house = sqlite_house
    project = house.project()
    secret, issuer = house.key(project, scopes=(*ISSUED, "keys"))
    child, _ = house.key(project, by=house.actor(secret), scopes=ISSUED)
    for scopes in subsets(ISSUED):
        changes = {"scopes": (*scopes, "keys")}
        house.acts.update_key(ADMIN, issuer.id, project_id=project, changes=changes)
        caller = house.actor(child).caller
        assert caller is not None
        assert caller.scopes == set(scopes)
        assert issuer.id in {each.id for each in caller.keys}
    for models in (("a",), None):
        changes = {"models": models}
        house.acts.update_key(ADMIN, issuer.id, project_id=project, changes=changes)
        caller = house.actor(child).caller
        assert caller is not None
        assert [each.models for each in caller.keys] == [None, models]


def test_issued_keys_stay_within_when_changed(house: House) -> None:
    """An administrator cannot extend an issued key beyond its issuer, but can rename it."""
    project = house.project()
    secret, issuer = house.key(project, scopes=("embeddings", "keys"), models=("a", "b"))
    _, child = house.key(project, by=house.actor(secret), scopes=("embeddings",), models=("a",))
    change = lambda **changes: house.acts.update_key(  # noqa: E731
        ADMIN, child.id, project_id=project, changes=changes
    )
    for wider in ({"models": None}, {"models": ("c",)}, {"scopes": ("usage",)}):
        with pytest.raises(Forbidden):
            change(**wider)
    assert change(models=("a", "b")).models == ("a", "b")
    house.acts.revoke_key(ADMIN, issuer.id, project_id=project)
    assert change(name="renamed").name == "renamed"


def test_expiry_of_issued_keys(house: House) -> None:
    """No key outlives the key that issued it."""
    project = house.project()
    secret, _ = house.key(project, scopes=("embeddings", "keys"), expires_ms=NOW_MS + 10_000)
    actor = house.actor(secret)
    for expires_ms in (None, NOW_MS + 10_001):
        with pytest.raises(Forbidden):
            house.key(project, by=actor, scopes=("embeddings",), expires_ms=expires_ms)
    child, _ = house.key(project, by=actor, scopes=("embeddings",), expires_ms=NOW_MS + 10_000)
    house.clock.now_ms += 9_999
    house.actor(child)
    house.clock.now_ms += 1
    with pytest.raises(InvalidKey):
        house.actor(child)


def test_admin_is_of_admin_keys(sqlite_house: House) -> None:
    """Only keys without a project have the scope `admin`, and they have no other scope."""
    house = sqlite_house
    for scopes in subsets(SCOPES):
        ordinary = bool(scopes) and "admin" not in scopes
        for project, right in ((DEFAULT_PROJECT, ordinary), (None, scopes == ("admin",))):
            changes = {"name": "k", "scopes": scopes}
            if right:
                _, key = house.acts.create_key(ADMIN, project_id=project, changes=changes)
                assert key.scopes == scopes
            else:
                with pytest.raises(InvalidRequest):
                    house.acts.create_key(ADMIN, project_id=project, changes=changes)


# Projects, keys and end users


def test_archived_for_good(house: House) -> None:
    """The keys of an archived project stop working, and the project cannot be changed."""
    project = house.project()
    secret, _ = house.key(project)
    house.actor(secret)
    for _ in range(2):
        assert house.acts.archive_project(ADMIN, project).archived_ms == NOW_MS
        house.clock.now_ms += 1
    with pytest.raises(InvalidKey, match="archived"):
        house.actor(secret)
    for refused in (
        lambda: house.key(project),
        lambda: house.acts.update_project(ADMIN, project, {"name": "x"}),
        lambda: house.acts.set_end_user(ADMIN, project, "u", {"blocked": True}),
        lambda: house.acts.archive_project(ADMIN, DEFAULT_PROJECT),
    ):
        with pytest.raises(InvalidRequest):
            refused()
    assert house.done(actions=["project.archived"]) == [(ADMIN.id, "project.archived", project)]


def test_keys_that_do_not_work_stay_so(house: House) -> None:
    """A revoked or expired key cannot be changed or revoked again."""
    project = house.project()
    _, revoked = house.key(project)
    house.acts.revoke_key(ADMIN, revoked.id, project_id=project)
    _, expired = house.key(project, expires_ms=NOW_MS + 1)
    house.clock.now_ms += 1
    for key in (revoked, expired):
        with pytest.raises(InvalidRequest, match="cannot be reactivated"):
            house.acts.update_key(ADMIN, key.id, project_id=project, changes={"expires_ms": None})
    with pytest.raises(NotFound):
        house.acts.revoke_key(ADMIN, revoked.id, project_id=project)


def test_no_key_is_born_expired(house: House) -> None:
    """A key that would never work is refused, whatever kind of key it is."""
    for project_id in (house.project(), None):
        for expires_ms in (1, NOW_MS):
            changes = {"name": "k", "expires_ms": expires_ms}
            with pytest.raises(InvalidRequest, match="in the past") as refused:
                house.acts.create_key(ADMIN, project_id=project_id, changes=changes)
            assert refused.value.param == "expires_at"


def test_the_last_admin_key(house: House) -> None:
    """An admin key can revoke itself, even the last one: the command line creates another."""
    secret = house.admin_key()
    actor = house.actor(secret)
    house.acts.revoke_key(actor, actor.id, project_id=None)
    with pytest.raises(InvalidKey):
        house.actor(secret)
    assert house.actor(house.admin_key()).caller.scopes == {"admin"}


ODD = [
    "a",
    "a/b",
    "/",
    "..",
    "a%2Fb",
    "100%",
    "a b",
    "?x=1#y",
    "ü",
    "~" * LONGEST,
]


def test_ids_of_end_users(house: House) -> None:
    """Any id that a request can name can have a record: created, read, changed and removed."""
    headers = {"authorization": f"Bearer {house.admin_key()}"}
    with serving(house) as url, httpx.Client(headers=headers) as client:
        path = f"{url}/organization/projects/{DEFAULT_PROJECT}/end_users"
        for id in ODD:
            made = client.post(path, json={"id": id, "blocked": True}).json()
            assert (made.get("id"), made.get("blocked")) == (id, True), made
            (listed,) = client.get(path, params={"id": id}).json()["data"]
            assert listed == made
            if id == "..":
                continue  # clients resolve it away
            one = f"{path}/{quote(id, safe='')}"
            assert client.get(one).json() == made
            changed = client.post(one, json={"blocked": False, "limits": []}).json()
            assert (changed["blocked"], changed["limits"]) == (False, [])
            assert client.delete(one).json()["id"] == id
            assert client.get(one).json()["created_at"] is None
        assert [each["id"] for each in client.get(path).json()["data"]] == [".."]


def test_blocked_since(house: House) -> None:
    """Blocking an end user again keeps the first time, and the limits."""
    limits = (Limit(of="requests", amount=1, per="day"),)
    change = lambda **changes: house.acts.set_end_user(  # noqa: E731
        ADMIN, DEFAULT_PROJECT, "u", changes
    )
    change(limits=limits)
    assert change(blocked=True).blocked_ms == NOW_MS
    house.clock.now_ms += 5
    user = change(blocked=True)
    assert (user.blocked_ms, user.limits) == (NOW_MS, limits)
    assert change(blocked=False).blocked_ms is None
    actions = [action for _, action, _ in house.done()]
    assert actions == ["end_user.created", "end_user.updated", "end_user.updated"]


# Lists


def test_lists_in_parts(house: House) -> None:
    """Paging through a list returns each item once, despite changes meanwhile."""
    ids = [house.project(f"p{n}") for n in range(7)]
    seen: list[str] = []
    after = None
    for step in range(20):
        page = house.acts.list_projects(ADMIN, after=after, limit=2)
        seen += [each.id for each in page.items]
        if not page.more:
            break
        after = page.items[-1].id
        if step == 1:
            # The last item of the previous page leaves the list, and others join it.
            house.acts.archive_project(ADMIN, after)
            house.clock.now_ms += 1
            house.project("late")
    assert len(seen) == len(set(seen))
    assert set(ids) <= set(seen)
    with pytest.raises(InvalidRequest, match="last_id"):
        house.acts.list_projects(ADMIN, after="proj_none", limit=2)


def test_lists_of_others_cannot_be_probed(house: House) -> None:
    """`after` with the id of a key outside the list reveals nothing about that key."""
    mine, other = house.project(), house.project()
    secret, _ = house.key(mine, scopes=("embeddings", "keys"))
    _, stranger = house.key(other)
    actor = house.actor(secret)
    messages = []
    for after in (stranger.id, "key_none"):
        with pytest.raises(InvalidRequest) as refused:
            house.acts.list_keys(actor, project_id=mine, after=after, limit=1)
        messages.append(str(refused.value).replace(after, ""))
    assert messages[0] == messages[1]


def test_many_at_once(house: House) -> None:
    """Concurrent changes all take effect, and are logged one after the other."""

    def change(n: int) -> None:
        house.acts.set_end_user(ADMIN, DEFAULT_PROJECT, f"u{n % 3}", {"blocked": n % 2 == 0})
        house.key(DEFAULT_PROJECT, name=f"k{n}")

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(change, range(12)))
    page = house.acts.list_keys(ADMIN, project_id=DEFAULT_PROJECT, after=None, limit=100)
    assert {each.name for each in page.items} == {f"k{n}" for n in range(12)}
    assert len(house.acts.list_end_users(ADMIN, DEFAULT_PROJECT, after=None, limit=9).items) == 3
    acts = house.acts.list_audit_events(ADMIN, AuditFilter(), after=None, limit=100).items
    numbers = [int(each.id.removeprefix("audit_"), 16) for each in acts]
    assert numbers == list(range(len(acts), 0, -1))
    assert sum(each.action == "api_key.created" for each in acts) == 12


# The audit log


def test_acts_are_recorded(house: House) -> None:
    """Each action logs actor, time and the old and new fields; a refused one logs nothing."""
    secret = house.admin_key()
    actor = house.actor(secret)
    project = house.acts.create_project(actor, {"name": "web", "eu_native": True})
    house.clock.now_ms += 5
    budget = Budget(amount_nano_usd=5, per="day")
    house.acts.update_project(actor, project.id, {"name": "shop", "budgets": (budget,)})
    house.acts.update_project(actor, project.id, {"name": "shop"})
    for wrong in ({"name": "\n"}, {"models": ()}, {"archived_ms": 1}, {"id": "x"}):
        with pytest.raises(InvalidRequest):
            house.acts.update_project(actor, project.id, wrong)
    updated, created = house.acts.list_audit_events(
        ADMIN, AuditFilter(project_ids=[project.id]), after=None, limit=10
    ).items
    assert created.details == {"name": "web", "eu_native": True}
    assert updated.details == {
        "name": {"from": "web", "to": "shop"},
        "budgets": {"from": [], "to": [{"amount_usd": 5e-9, "per": "day", "alerts": []}]},
    }
    assert (updated.actor, updated.at_ms, updated.request_id) == (actor.id, NOW_MS + 5, "req_1")
    assert house.done(targets=[actor.id]) == [(ADMIN.id, "api_key.created", actor.id)]
    assert house.done(since_ms=NOW_MS + 1) == [(actor.id, "project.updated", project.id)]
    assert len(house.done(until_ms=NOW_MS + 1)) == 2


def test_an_act_that_fails_leaves_nothing(house: House) -> None:
    """An action and its audit event are stored together or not at all."""
    secret, key = house.key(DEFAULT_PROJECT)
    with house.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE audit RENAME TO gone")
    with asking(house, house_admin_secret(house)) as client:
        answer = client.delete(f"/v1/organization/projects/{DEFAULT_PROJECT}/api_keys/{key.id}")
    assert answer.status_code == 503
    assert "audit" not in answer.text
    assert house.actor(secret)


def house_admin_secret(house: House) -> str:
    """Store an admin key without an audit event."""
    shown, key = secrets.issue_key(
        "a", pepper=PEPPER, now_ms=NOW_MS, project_id=None, scopes=("admin",)
    )
    KeyBootstrap(house.engine).create(key)
    return shown


def test_no_secret_is_recorded(house: House) -> None:
    """Neither the audit log nor any response but the first has a secret or a digest."""
    with asking(house, house.admin_key()) as client:
        keys = f"/v1/organization/projects/{DEFAULT_PROJECT}/api_keys"
        made = client.post(keys, json={"name": "k"}).json()
        client.post(f"{keys}/{made['id']}", json={"name": "l"})
        shown = "".join(
            client.get(path).text
            for path in (keys, f"{keys}/{made['id']}", "/v1/organization/audit_logs")
        )
    acts = house.acts.list_audit_events(ADMIN, AuditFilter(), after=None, limit=100).items
    shown += str(acts)
    assert made["id"] in shown
    for private in (made["value"], made["value"][20:], "digest"):
        assert private not in shown


def test_the_first_key_is_recorded(house: House) -> None:
    """The audit log has the key that the first start creates."""
    _, key = secrets.issue_key("first", pepper=PEPPER, now_ms=NOW_MS)
    assert KeyBootstrap(house.engine).create_first(key)
    assert house.done() == [("cli:serve", "api_key.created", key.id)]


# What requests may say

LIMIT = {"of": "requests", "amount": 1, "per": "day"}
BUDGET = {"amount_usd": 1, "per": "day"}
WRONG: list[tuple[Any, str | None]] = [
    ({}, "name"),
    ([], None),
    ("text", None),
    (None, None),
    ({"name": 1}, "name"),
    ({"name": ""}, "name"),
    ({"name": " "}, "name"),
    ({"name": "a\nb"}, "name"),
    ({"name": "\ud800"}, "name"),
    ({"name": "x" * 257}, "name"),
    ({"name": "x", "color": "red"}, "color"),
    ({"name": "x", "id": "proj_mine"}, "id"),
    ({"name": "x", "archived_ms": 1}, "archived_ms"),
    ({"name": "x", "models": []}, "models"),
    ({"name": "x", "models": "auto"}, "models"),
    ({"name": "x", "models": ["a", "a"]}, "models"),
    ({"name": "x", "models": ["a", 1]}, "models[1]"),
    ({"name": "x", "models": ["a\0"]}, "models"),
    ({"name": "x", "models": [str(n) for n in range(257)]}, "models"),
    ({"name": "x", "eu_native": 1}, "eu_native"),
    ({"name": "x", "eu_native": None}, "eu_native"),
    ({"name": "x", "limits": LIMIT}, "limits"),
    ({"name": "x", "limits": [LIMIT | {"amount": 0}]}, "limits[0].amount"),
    ({"name": "x", "limits": [LIMIT | {"amount": 1.5}]}, "limits[0].amount"),
    ({"name": "x", "limits": [LIMIT | {"amount": True}]}, "limits[0].amount"),
    ({"name": "x", "limits": [LIMIT | {"amount": 10**16}]}, "limits[0].amount"),
    ({"name": "x", "limits": [LIMIT | {"per": "month"}]}, "limits[0].per"),
    ({"name": "x", "limits": [LIMIT, LIMIT | {"of": "bytes"}]}, "limits[1].of"),
    ({"name": "x", "limits": [LIMIT, LIMIT | {"amount": 2}]}, "limits"),
    ({"name": "x", "limits": [LIMIT | {"burst": 2}]}, "limits[0].burst"),
    ({"name": "x", "limits": [{"of": "tokens", "per": "day"}]}, "limits[0].amount"),
    ({"name": "x", "limits": [LIMIT] * 17}, "limits"),
    ({"name": "x", "user_limits": [LIMIT, LIMIT]}, "user_limits"),
    ({"name": "x", "budgets": [BUDGET | {"amount_usd": -1}]}, "budgets[0].amount_usd"),
    ({"name": "x", "budgets": [BUDGET | {"amount_usd": True}]}, "budgets[0].amount_usd"),
    ({"name": "x", "budgets": [BUDGET | {"amount_usd": "1e3"}]}, "budgets[0].amount_usd"),
    ({"name": "x", "budgets": [BUDGET | {"amount_usd": 1e-10}]}, "budgets[0].amount_usd"),
    ({"name": "x", "budgets": [BUDGET | {"amount_usd": 1e10}]}, "budgets[0].amount_usd"),
    ({"name": "x", "budgets": [BUDGET | {"amount_usd": "NaN"}]}, "budgets[0].amount_usd"),
    ({"name": "x", "budgets": [BUDGET | {"per": "hour"}]}, "budgets[0].per"),
    ({"name": "x", "budgets": [BUDGET | {"alerts": [0]}]}, "budgets[0].alerts[0]"),
    ({"name": "x", "budgets": [BUDGET | {"alerts": [101]}]}, "budgets[0].alerts[0]"),
    ({"name": "x", "budgets": [BUDGET | {"alerts": [50] * 17}]}, "budgets[0].alerts"),
    ({"name": "x", "budgets": [BUDGET] * 9}, "budgets"),
]


def test_wrong_projects(sqlite_house: House) -> None:
    """Each invalid field is refused with a message that names it, and nothing is stored."""
    with asking(sqlite_house, sqlite_house.admin_key()) as client:
        for body, param in WRONG:
            answer = client.post(
                "/v1/organization/projects",
                content=json.dumps(body),
                headers={"content-type": "application/json"},
            )
            assert answer.status_code == 400, body
            error = problem(answer)
            assert error["param"] == param, (body, error)
            assert error["message"].endswith(".")
            assert param is None or param.split("[")[0].split(".")[0] in error["message"]
        (default,) = client.get("/v1/organization/projects").json()["data"]
        assert default["id"] == DEFAULT_PROJECT


def test_amounts_in_another_form(sqlite_house: House) -> None:
    """A limit or budget that is not an object is refused with an example of one."""
    limit = '{"of": "requests", "amount": 600, "per": "minute"}'
    budget = '{"amount_usd": 25.5, "per": "month", "alerts": [80]}'
    with asking(sqlite_house, sqlite_house.admin_key()) as client:
        for field, sent, form in (
            ("limits", "requests=5/minute", limit),
            ("user_limits", 5, limit),
            ("budgets", "25/month", budget),
            ("user_budgets", ["25"], budget),
        ):
            answer = client.post("/v1/organization/projects", json={"name": "x", field: [sent]})
            error = problem(answer)
            assert (answer.status_code, error["param"]) == (400, f"{field}[0]")
            assert error["message"].endswith(f": send one as {form}.")
        for form in (limit, budget):
            field = "budgets" if form == budget else "limits"
            body = {"name": "x", field: [json.loads(form)]}
            assert client.post("/v1/organization/projects", json=body).status_code == 200


WRONG_KEYS: list[tuple[dict[str, Any], str]] = [
    ({"scopes": []}, "scopes"),
    ({"scopes": ["root"]}, "scopes[0]"),
    ({"scopes": ["admin"]}, "scopes"),
    ({"scopes": ["usage", "usage"]}, "scopes"),
    ({"scopes": None}, "scopes"),
    ({"expires_in_seconds": 0}, "expires_in_seconds"),
    ({"expires_in_seconds": 10**12}, "expires_in_seconds"),
    ({"expires_in_seconds": 5, "expires_at": 5}, "expires_at"),
    ({"expires_at": 10**12}, "expires_at"),
    ({"issued_by": "key_x"}, "issued_by"),
    ({"project_id": "proj_x"}, "project_id"),
    ({"digest": "00"}, "digest"),
]


def test_wrong_keys(sqlite_house: House) -> None:
    """Each invalid field of a key is refused, both on creation and on change."""
    house = sqlite_house
    _, key = house.key(DEFAULT_PROJECT)
    path = f"/v1/organization/projects/{DEFAULT_PROJECT}/api_keys"
    with asking(house, house.admin_key()) as client:
        for fields, param in WRONG_KEYS:
            for url, body in ((path, {"name": "x", **fields}), (f"{path}/{key.id}", fields)):
                answer = client.post(url, json=body)
                assert answer.status_code == 400
                assert problem(answer)["param"] == param
    assert house.acts.find_key(ADMIN, key.id) == key


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"{", "JSON"), (b"\xff", "JSON"), (b"[" * 100_000, "JSON"), (b"", "JSON object"),
     (b'{"name": 1' + b"0" * 5000 + b"}", "JSON"), (b" " * (2**20 + 1), "larger")],
)  # fmt: skip
def test_broken_bodies(sqlite_house: House, content: bytes, message: str) -> None:
    """An unreadable body is refused in the usual form; one that is too large is not buffered."""
    with asking(sqlite_house, sqlite_house.admin_key()) as client:
        headers = {"content-type": "application/json"}
        answer = client.post("/v1/organization/projects", content=content, headers=headers)
        assert answer.status_code in {400, 413}
        assert message in problem(answer)["message"]
        encoded = {**headers, "content-encoding": "gzip"}
        answer = client.post("/v1/organization/projects", content=b"{}", headers=encoded)
        assert answer.status_code == 415


NOWHERE = [
    "projects/a%00b",
    "projects/%F0%9F%92%A9",
    "projects/" + "x" * 999,
    "projects/'%20OR%201=1--",
    "admin_api_keys/a%00b",
    "projects/proj_default/api_keys/a%00b",
    "projects/proj_none/end_users/u",
]


def test_ids_that_nothing_has(house: House) -> None:
    """An id that no object could have gets the same error as an unused one."""
    with asking(house, house.admin_key()) as client:
        for path in NOWHERE:
            answer = client.get(f"/v1/organization/{path}")
            assert answer.status_code == 404
            assert problem(answer)["code"] is None


def test_errors_over_http_name_no_command(sqlite_house: House) -> None:
    """Errors over HTTP do not mention the commands that the command line adds."""
    key_id = sqlite_house.key(DEFAULT_PROJECT)[1].id
    key = f"projects/{DEFAULT_PROJECT}/api_keys/{key_id}"
    with asking(sqlite_house, sqlite_house.admin_key()) as client:
        client.delete(f"/v1/organization/{key}")
        for path, send in (
            (key, client.delete),
            ("projects/proj_none", client.get),
            (f"projects/{DEFAULT_PROJECT}/archive", client.post),
        ):
            answer = send(f"/v1/organization/{path}")
            assert answer.status_code in {400, 404}
            assert "embedway" not in problem(answer)["message"]


def test_wrong_queries(sqlite_house: House) -> None:
    """A page has 1 to 100 entries and follows an id."""
    of = f"projects/{DEFAULT_PROJECT}"
    lists = ("projects", "admin_api_keys", "audit_logs", f"{of}/api_keys", f"{of}/end_users")
    with asking(sqlite_house, sqlite_house.admin_key()) as client:
        for path in lists:
            for query in ("after=a%00b", "after=", "limit=0", "limit=101", "limit=x"):
                answer = client.get(f"/v1/organization/{path}?{query}")
                assert answer.status_code == 400
                assert problem(answer)["param"] == query.partition("=")[0]


def test_secrets_are_not_repeated(sqlite_house: House) -> None:
    """A secret sent in the wrong field is not repeated in the error."""
    secret = "sk-gateway-" + "z" * 38
    with asking(sqlite_house, sqlite_house.admin_key()) as client:
        for body in (
            {"value": secret}, {"name": "x", "value": secret}, {"name": "x", "eu_native": secret},
            {"name": "x", "limits": [secret]}, {"name": "x", "models": {"key": secret}},
            {"name": "x", "api_key": "zzzzzz-plain"}, {"name": [secret]},
        ):  # fmt: skip
            answer = client.post("/v1/organization/projects", json=body)
            assert answer.status_code == 400
            assert "zzzzzz" not in answer.text


# Amounts


limits = st.builds(
    Limit,
    of=st.sampled_from(LimitUnit.__args__),
    amount=st.integers(1, MAX_AMOUNT),
    per=st.sampled_from(LimitPeriod.__args__),
)
budgets = st.builds(
    Budget,
    amount_nano_usd=st.integers(0, MAX_NANO_USD),
    per=st.sampled_from(BudgetPer.__args__),
)


@given(limits)
def test_limits_are_typed_as_they_are_shown(limit: Limit) -> None:
    """A limit's text, as it is shown, parses to the same limit."""
    assert limits_and_budgets.parse_limit(limits_and_budgets.format_limit(limit)) == limit


@given(budgets)
def test_budgets_are_typed_as_they_are_shown(budget: Budget) -> None:
    """A budget's text, as it is shown, parses to the same budget, to the nano-dollar."""
    shown = limits_and_budgets.format_budget(budget)
    assert limits_and_budgets.parse_budget(shown) == budget
    sent = BudgetBody.model_validate({"amount_usd": shown.partition("/")[0], "per": budget.per})
    assert sent.amount_usd == Decimal(budget.amount_nano_usd).scaleb(-9)


@given(st.integers(0, 10**15))
def test_budgets_as_numbers(nano: int) -> None:
    """A budget sent as a JSON number is read exactly, although such numbers are binary."""
    sent = BudgetBody.model_validate({"amount_usd": nano / 10**9, "per": "day"})
    assert sent.amount_usd.scaleb(9) == nano


@given(st.text() | st.from_regex(r"(requests|tokens)?=?-?[0-9.e]*/(day|month)?", fullmatch=True))
def test_other_text_is_no_amount(text: str) -> None:
    """Any other text is refused with an example, or is an amount in its own form."""
    for parse, shown, form in (
        (limits_and_budgets.parse_limit, limits_and_budgets.format_limit, "requests=600/minute"),
        (limits_and_budgets.parse_budget, limits_and_budgets.format_budget, "25/month"),
    ):
        parsed, message = None, ""
        try:
            parsed = parse(text)
        except ValueError as error:
            message = str(error)
        assert form in message or parse(shown(parsed)) == parsed


def test_the_database_gone(house: House) -> None:
    """Without a database, the API answers 503 and reveals no SQL."""
    with asking(house, house.admin_key()) as client:
        with house.engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE projects RENAME TO gone")
        answer = client.get("/v1/organization/projects")
    assert answer.status_code == 503
    assert "retry-after" in answer.headers
    assert not {"SELECT", "gone", "no such table"} & set(problem(answer)["message"].split())
