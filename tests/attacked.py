"""What the tests of known attacks share: a gateway with two tenants, and each field of its API."""

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import httpx
import msgspec
from anyio.from_thread import BlockingPortal, start_blocking_portal
from in_process import running
from sqlalchemy import select

from embedway.core import clock
from embedway.organization import key_secret as secrets
from embedway.organization.actors import Actor
from embedway.organization.keys import KeyBootstrap
from embedway.organization.service import AdminService
from embedway.storage.store import Store, open_store
from embedway.storage.tables import metadata, refusals
from embedway.testing import Upstream

PROVIDER_KEY = "provider-key-0f3c9a71d2"
DOOR = "/v1/embeddings"
EXCHANGE = "/api/v1/authentication/api-key/exchange-token"
OAUTH = "/api/v1/oauth2/token"
OF_PROJECTS = ("embeddings", "on_behalf_of", "tokens", "usage", "keys")
ADMIN = Actor.at_command_line("tests")

_OF_A_DATABASE = re.compile(
    r"sqlite|psycopg|sqlalchemy|\bsyntax|no such|\brelation\b|traceback|unterminated|sqlstate"
    r"|invalid byte|IntegrityError|DataError|OperationalError",
    re.IGNORECASE,
)


class Tenant(msgspec.Struct, frozen=True):
    """A project with a key that has all scopes a project's key can have."""

    project: str
    key_id: str
    secret: str
    name: str


class House:
    """A whole gateway in this process, on any database, with an upstream and two tenants."""

    def __init__(
        self, portal: BlockingPortal, client: httpx.AsyncClient, store: Store, upstream: Upstream
    ) -> None:
        self.store = store
        self.upstream = upstream
        self.ahead_ms = 0
        """By how much the clock of the gateway is ahead."""
        self.acts = AdminService(store.database, pepper=store.pepper, now_ms=clock.now_ms)
        self._portal = portal
        self._client = client

    def furnish(self) -> None:
        """Lets two tenants in, one of which has been busy, and an administrator."""
        self.mine, self.theirs = self.tenant("mine"), self.tenant("theirs")
        self.admin = self.acts.create_key(ADMIN, project_id=None, changes={"name": "admin"})[0]
        self.acts.set_end_user(ADMIN, self.theirs.project, "ann-of-theirs", {"blocked": False})
        told = {"metadata": {"team": "team-of-theirs"}}
        headers = {"x-on-behalf-of": "ann-of-theirs"}
        assert self.embed(self.theirs.secret, headers=headers, **told).status_code == 200
        form = {"data": {"purpose": "batch"}, "files": {"file": ("name-of-theirs", b"{}")}}
        file = self.ask("POST", "/v1/files", self.theirs.secret, **form).json()["id"]
        wanted = {
            "input_file_id": file,
            "endpoint": "/v1/embeddings",
            "completion_window": "24h",
            "metadata": {"team": "team-of-theirs"},
        }
        batch = self.ask("POST", "/v1/batches", self.theirs.secret, json=wanted).json()["id"]
        self.files = {"file_id": file, "batch_id": batch}
        """The ids of a file and a batch of theirs."""

    def tenant(self, name: str, **more: Any) -> Tenant:
        """A new one."""
        project = self.acts.create_project(ADMIN, {"name": f"project-of-{name}"}).id
        secret, id = self.key(project, *OF_PROJECTS, name=f"key-of-{name}", **more)
        return Tenant(project, id, secret, name)

    def key(self, project: str, *scopes: str, **more: Any) -> tuple[str, str]:
        """A new key that an administrator makes: its secret and its id."""
        changes = {"name": "k", "scopes": scopes, **more}
        secret, key = self.acts.create_key(ADMIN, project_id=project, changes=changes)
        return secret, key.id

    def ask(self, method: str, path: str, key: str | None = None, **options: Any) -> httpx.Response:
        """One request."""
        headers = dict(options.pop("headers", {}))
        if key is not None:
            headers["authorization"] = f"Bearer {key}"
        if "json" in options:
            headers["content-type"] = "application/json"
            options["content"] = json.dumps(options.pop("json")).encode()

        async def send() -> httpx.Response:
            return await self._client.request(method, path, headers=headers, **options)

        return self._portal.call(send)

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What an async function returns, run where the gateway runs."""
        return self._portal.call(function, *arguments)

    def add(self, secret: str) -> str:
        """Stores a key of "mine" whose secret is this one; its id."""
        _, key = secrets.issue_key("k", pepper=self.store.pepper, now_ms=clock.now_ms())
        key = msgspec.structs.replace(
            key,
            project_id=self.mine.project,
            digest=secrets.digest(secret, pepper=self.store.pepper),
        )
        KeyBootstrap(self.store.database).create(key)
        return key.id

    def embed(self, key: str | None, *, headers: Mapping[str, str] | None = None, **fields: Any):
        """One embeddings request."""
        told = {"input": "a", "model": "openai:m", **fields}
        return self.ask("POST", DOOR, key, json=told, headers=headers or {})

    def exchanged(self, key: str, end_user: str = "ada", **more: Any) -> str:
        """A token for an end user."""
        told = {"audience": "embedway", "externalUserId": end_user, **more}
        return self.ask("POST", EXCHANGE, key, json=told).raise_for_status().json()["token"]

    def rows(self) -> dict[str, set[str]]:
        """Everything in the database, by table, but for the counts of what was refused."""
        with self.store.database.connect() as connection:
            return {
                name: {repr(tuple(row)) for row in connection.execute(select(table))}
                for name, table in metadata.tables.items()
                if table is not refusals
            }

    def schema(self) -> dict[str, Any]:
        """What `/openapi.json` answers."""
        return self.ask("GET", "/openapi.json").raise_for_status().json()

    def operations(self) -> Iterator["Operation"]:
        """Every operation that `/openapi.json` has."""
        schema = self.schema()
        for path, methods in schema["paths"].items():
            for method, described in methods.items():
                yield Operation(schema, method.upper(), path, described)


@contextmanager
def open_house(folder: Path, *, database_url: str | None = None) -> Iterator[House]:
    """A house on a new folder, and on a new database of Postgres if there is a URL."""
    with Upstream() as upstream, start_blocking_portal() as portal:
        values = {
            "canaries": False,
            "providers": {
                name: {
                    "kind": name,
                    "base_url": f"{upstream.url}/{name}{base}",
                    "api_key": PROVIDER_KEY,
                    "models": [{"id": "m", "price_per_mtok_usd": "1"}],
                }
                for name, base in (("openai", "/v1"), ("gemini", "/v1beta"))
            },
        }
        if database_url:
            values["database_url"] = database_url
        store = open_store(folder / "data", database_url=database_url)
        made: list[House] = []
        gateway = running(
            values,
            folder=folder,
            now_ms=lambda: clock.now_ms() + (made[0].ahead_ms if made else 0),
            now_s=time.monotonic,
        )
        with portal.wrap_async_context_manager(gateway) as app:
            transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
            client = httpx.AsyncClient(transport=transport, base_url="http://gateway")
            house = House(portal, client, store, upstream)
            made.append(house)
            house.furnish()
            yield house
            portal.call(client.aclose)
        store.database.dispose()


def check(answer: httpx.Response, *, sent: str = "") -> None:
    """No 5xx, and no word of a database, whatever of what was `sent` is repeated."""
    where = (answer.request.method, str(answer.request.url), sent, answer.text[:500])
    assert answer.status_code < 500, where
    told = answer.text
    for spelled in (sent, json.dumps(sent)[1:-1]):
        told = told.replace(spelled, "") if spelled else told
    assert answer.status_code < 400 or not _OF_A_DATABASE.search(told), where


# Every place where a client can put something


KEY = "\0key"
"""In a place: the name of a field, not its value."""
Place = tuple[str | int, ...]


class Operation:
    """One method of one path, as OpenAPI describes it."""

    def __init__(
        self, schema: Mapping[str, Any], method: str, path: str, described: Mapping[str, Any]
    ) -> None:
        self.method = method
        self.path = path
        self._schema = schema
        self._parameters = described.get("parameters", [])
        content = described.get("requestBody", {}).get("content", {})
        self._body = content.get("application/json", {}).get("schema")

    @property
    def open(self) -> bool:
        """Whether it needs no key, or brings its own credentials."""
        return self.path in {"/livez", "/readyz", "/metrics", "/api/v1/models", OAUTH}

    @property
    def is_of_files(self) -> bool:
        """Whether it is one of files or batches, which belong to the caller's project."""
        return self.path.startswith(("/v1/files", "/v1/batches"))

    def names(self, where: str) -> list[str]:
        """The parameters in the path, the query or the headers."""
        return [each["name"] for each in self._parameters if each["in"] == where]

    def places(self) -> list[Place]:
        """Every place in the body."""
        return list(self._places(self._body)) if self._body else []

    def request(
        self, values: Mapping[str, str], *, at: tuple[str, str | Place] | None = None, put: Any = ""
    ) -> dict[str, Any]:
        """A request as `House.ask` takes it, all right but for what is `put` at a place.

        Args:
            values: Of the path's parameters, by their names; and of required ones of the query.
            at: In the path, the query, the headers or the body; and its name or place there.
            put: A string, but for the body.
        """
        where, name = at or ("", "")
        path, query, headers = dict(values), {}, {}
        for each in self._parameters:
            if each["in"] == "query" and each.get("required"):
                query[each["name"]] = values.get(each["name"], self._sample(each["schema"]))
        body = self._sample(self._body) if self._body else None
        match where:
            case "path":
                path[str(name)] = put
            case "query":
                query[str(name)] = put
            case "header":
                headers[str(name)] = put
            case "body":
                body = self._put(self._body, tuple(name), put)
            case _:
                pass
        filled = self.path
        for each in self.names("path"):
            filled = filled.replace(f"{{{each}}}", quote(path[each], safe=""))
        asked = f"{filled}?{urlencode(query)}" if query else filled
        told = {"method": self.method, "path": asked, "headers": headers}
        return told if body is None else {**told, "json": body}

    def _resolved(self, node: Mapping[str, Any]) -> Mapping[str, Any]:
        while "$ref" in node or "anyOf" in node:
            if "$ref" in node:
                node = self._schema["components"]["schemas"][node["$ref"].rpartition("/")[2]]
            else:
                node = next(each for each in node["anyOf"] if each.get("type") != "null")
        return node

    def _sample(self, node: Mapping[str, Any]) -> Any:
        node = self._resolved(node)
        if "const" in node or "enum" in node:
            return node["const"] if "const" in node else node["enum"][0]
        match node.get("type"):
            case "object":
                fields = node.get("properties", {})
                return {name: self._sample(fields[name]) for name in node.get("required", ())}
            case "array":
                return [self._sample(node["items"])]
            case "integer" | "number":
                return int(node.get("minimum", 1)) or 1
            case "boolean":
                return True
            case _:
                return "embedway"

    def _places(self, node: Mapping[str, Any]) -> Iterator[Place]:
        node = self._resolved(node)
        yield ()
        if node.get("type") == "array":
            yield from ((0, *each) for each in self._places(node["items"]))
        if node.get("type") == "object":
            yield (KEY,)
            for name, field in node.get("properties", {}).items():
                yield from ((name, *each) for each in self._places(field))
            if "properties" not in node:
                yield ("k",)

    def _put(self, node: Mapping[str, Any], place: Place, put: Any) -> Any:
        if not place:
            return put
        node = self._resolved(node)
        if node.get("type") == "array":
            return [self._put(node["items"], place[1:], put)]
        whole = self._sample(node)
        if place[0] == KEY:
            return {**whole, str(put): "a"}
        field = node.get("properties", {}).get(place[0], {})
        return {**whole, place[0]: self._put(field, place[1:], put)}


def until(condition: Callable[[], object], *, within_s: float = 20) -> None:
    """Polls `condition` until it holds."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)
