"""Leaks that similar gateways had, above all LiteLLM, each with its class.

They run on a real gateway in its own process with full logging. Requests succeed and fail in many
ways, and then everything the gateway wrote or answered is searched. Attacks that would change
something are in `test_known_attacks`.
"""

import base64
import hashlib
import os
import re
import signal
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import httpx
import msgspec
import pytest
from attacked import ADMIN, EXCHANGE, OAUTH
from conftest import Gateway, Minilm, embedway, free_port, get
from outside_issuer import hs256, raw
from raw_http import Wire, body
from servers import Postgres

from embedway.core import clock
from embedway.core.project import DEFAULT_PROJECT
from embedway.organization import key_secret
from embedway.organization.keys import KeyBootstrap
from embedway.organization.service import AdminService
from embedway.storage.pepper import PEPPER_BYTES
from embedway.storage.store import open_store
from embedway.testing import Upstream

PROVIDER_KEY = "provider-5e1d0c77b9aa40c2"
REDIS_PASSWORD = "redis-password-71f0"
DATABASE_PASSWORD = "database-password-9d2c"
OPEN = ("/livez", "/readyz", "/metrics", "/docs", "/openapi.json", "/api/v1/models")
REPEATING = (
    "401 that repeats the key", "400 that repeats the key in every form",
    "400 that repeats the head", "500 that repeats the key", "200 that repeats the key",
    "400 that repeats the key in a header", "422 that repeats the body",
)  # fmt: skip
COMMANDS = (
    "config show", "config show --json", "doctor", "doctor --json", "db status", "keys list",
    "keys list --json", "projects list --json", "users list --project proj_default", "audit --json",
    "usage --json --by key,user", "providers list", "providers test openai",
)  # fmt: skip


class GatewayOutput(msgspec.Struct):
    """The secrets of a gateway, and everything it wrote and answered."""

    gateway: Gateway
    secrets: dict[str, str]
    misplaced: dict[str, str]
    """Keys that were sent in a wrong place, by place."""
    answers: dict[str, str]
    """Every answer, with its headers, and what commands print."""
    unlocked: dict[str, str]
    """The answers of the open routes, by path."""
    upstream: str

    def everywhere(self) -> Mapping[str, bytes]:
        """Return all output by its place, including every file that the operator did not write."""
        folder = self.gateway.folder
        files = {str(each): each.read_bytes() for each in folder.rglob("*") if each.is_file()}
        files.pop(str(folder / "embedway.toml"))
        return files | {where: text.encode() for where, text in self.answers.items()}


class Session:
    """Sends requests to a gateway and keeps the answers."""

    def __init__(self, gateway: Gateway, upstream: Upstream) -> None:
        self.gateway = gateway
        self.upstream = upstream
        self.pepper = gateway.env["EMBEDWAY_PEPPER"]
        self.store = open_store(gateway.folder / "data", pepper=self.pepper)
        self.service = AdminService(
            self.store.database, pepper=self.store.pepper, now_ms=clock.now_ms
        )
        self.secrets = {
            "the pepper": self.pepper,
            "the pepper's bytes": base64.b64encode(bytes.fromhex(self.pepper)).decode(),
            "the provider's key": PROVIDER_KEY,
            "Redis' password": REDIS_PASSWORD,
            "the gateway's key": gateway.key,
        }
        self.answers: dict[str, str] = {}
        self._client = httpx.Client(base_url=gateway.url, timeout=60, verify=False)

    def ask(self, method: str, path: str, credential: str | None = None, **options):
        """Send a request and keep the answer."""
        headers = options.pop("headers", {})
        if credential is not None:
            headers = {"authorization": credential, **headers}
        answer = self._client.request(method, path, headers=headers, **options)
        self.answers[f"{len(self.answers)} {method} {path[:80]}"] = (
            f"{answer.headers}\n{answer.text}"
        )
        return answer

    def embed(self, credential: str | None, **options):
        """Send an embeddings request."""
        fields = {"input": "a", "model": "openai:m", **options.pop("fields", {})}
        return self.ask("POST", "/v1/embeddings", credential, json=fields, **options)

    def key(self, *scopes: str, admin: bool = False) -> tuple[str, str]:
        """Return the id and secret of a new key."""
        project = None if admin else DEFAULT_PROJECT
        changes = {"name": "k", **({"scopes": scopes} if scopes else {})}
        shown, key = self.service.create_key(ADMIN, project_id=project, changes=changes)
        return key.id, shown

    def succeed(self) -> None:
        """Use every kind of credential correctly."""
        id, key = self.key("embeddings", "tokens", "usage", "keys", "on_behalf_of")
        _, admin = self.key(admin=True)
        request = {"audience": "embedway", "externalUserId": "@ada@"}
        token = self._client.post(
            EXCHANGE, headers={"authorization": f"Bearer {key}"}, json=request
        ).json()["token"]
        grant = {"grant_type": "client_credentials", "client_id": id, "client_secret": key}
        access = self._client.post(OAUTH, data=grant).json()["access_token"]
        made = self._client.post(
            f"/v1/organization/projects/{DEFAULT_PROJECT}/api_keys",
            headers={"authorization": f"Bearer {admin}"}, json={"name": "by API"},
        ).json()  # fmt: skip
        self.secrets |= {
            "a key": key,
            "an admin key": admin,
            "an exchanged token": token,
            "an access token": access,
            "a key made by the API": made["value"],
        }
        for each in (self.gateway.key, key, token, access, made["value"]):
            assert self.embed(f"Bearer {each}").status_code == 200
        for n in range(3):
            invented = {"model": f"openai:invented-{n}", "user": f"invented-{n}"}
            assert self.embed(f"Bearer {key}", fields=invented).status_code == 200
        self.ask("POST", f"/v1/organization/projects/{DEFAULT_PROJECT}/api_keys/{made['id']}",
                 f"Bearer {admin}", json={"name": "another"})  # fmt: skip
        usage = "/usage/embeddings?start_time=1&group_by=api_key_id&bucket_width=1d&limit=1"
        keys = f"/projects/{DEFAULT_PROJECT}/api_keys"
        for path in (keys, "/admin_api_keys", "/audit_logs", usage):
            assert self.ask("GET", f"/v1/organization{path}", f"Bearer {admin}").status_code == 200

    def fail(self) -> None:
        """Use credentials, and texts that look like one, wrongly."""
        _, revoked = self.key()
        [id] = [each.id for each in KeyBootstrap(self.store.database).all()][-1:]
        self.service.revoke_key(ADMIN, id, project_id=DEFAULT_PROJECT)
        outside = raw({"alg": "HS256"}, {"iss": "x", "sub": "a", "exp": 4e9}, hs256(b"guess"))
        admin, key = self.secrets["an admin key"], self.secrets["a key"]
        wrong = {
            "a revoked key": revoked,
            "an unknown key": key_secret.generate_secret(),
            "a mistyped key": key_secret.generate_secret()[:-1] + "!",
            "a key cut off": key_secret.generate_secret()[:-9],
            "a provider's key of a client": "sk-proj-Zz81KQv0aWm3Rt7Yp2Lc9Xd4",
            "a token of nobody": outside,
            "a token that was changed": self.secrets["an exchanged token"][:-6] + "AAAAAA",
        }
        for each in wrong.values():
            for form in ("Bearer {}", "{}", "Basic {}", "Token {}", "bearer  {}"):
                assert self.embed(form.format(each)).status_code == 401
            self.ask("GET", "/v1/models", f"Bearer {each}")
            self.ask("POST", EXCHANGE, f"Bearer {each}", json={})
            grant = {"grant_type": "client_credentials", "client_id": "k", "client_secret": each}
            self.ask("POST", OAUTH, json=grant)
            self.ask("POST", OAUTH, data={**grant, "client_id": each})
            basic = base64.b64encode(f"k:{each}".encode()).decode()
            self.ask("POST", OAUTH, f"Basic {basic}", data={"grant_type": "client_credentials"})
        self.secrets |= wrong
        self.embed(f"Bearer {admin}")
        for method in ("GET", "POST", "PATCH", "DELETE"):
            self.ask(method, "/v1/organization/admin_api_keys/x", f"Bearer {key}", json={"n": key})
        for misbehaviour in REPEATING:
            self.upstream.always(misbehaviour)
            self.embed(f"Bearer {key}")
        self.upstream.always(None)

    def misplace(self) -> dict[str, str]:
        """Send a new key in each wrong place."""
        bearer, admin = (f"Bearer {self.secrets[each]}" for each in ("a key", "an admin key"))
        keys = {where: self.key()[1] for where in MISPLACED}
        self.embed(bearer, fields={"model": keys["model"]})
        self.embed(bearer, fields={"model": f"openai:{keys['model of a provider']}"})
        self.ask("POST", f"/v1/embeddings?api_key={keys['query']}", json={"input": "a"})
        self.embed(bearer, params={"dry_run": keys["value in the query"]})
        self.ask("GET", f"/v1/models?key={keys['query of the control plane']}")
        self.ask("GET", f"/v1/organization/costs?key={keys['query of usage']}&start_time=1", admin)
        name = keys["name of a parameter"]
        self.ask("GET", f"/v1/organization/costs?{name}=1&start_time=1", admin)
        self.ask("GET", f"/v1/{keys['path']}")
        self.ask("DELETE", f"/v1/organization/admin_api_keys/{keys['id in the path']}", admin)
        self.ask("GET", f"/v1/models/{keys['model in the path']}", bearer)
        self.embed(bearer, fields={keys["name of a field"]: 1})
        self.embed(bearer, fields={"api_key": keys["value of a field"]})
        self.embed(bearer, fields={"encoding_format": keys["value of a known field"]})
        self.embed(bearer, fields={"allowed_providers": [keys["allowed_providers"]]})
        self.embed(bearer, fields={"fallbacks": [keys["fallbacks"]]})
        self.embed(bearer, fields={"input": {"x": keys["input"]}})
        self.embed(bearer, headers={"x-request-id": keys["X-Request-Id"]})
        self.ask("POST", "/v1/organization/projects", admin, json={"nam": keys["admin body"]})
        self.ask("POST", "/v1/organization/projects", admin, json={"name": "x"},
                 headers={"x-request-id": keys["X-Request-Id of an act"]})  # fmt: skip
        made = {"name": "x", "scopes": [keys["scopes"]]}
        self.ask("POST", f"/v1/organization/projects/{DEFAULT_PROJECT}/api_keys", admin, json=made)
        request = {"audience": keys["audience"], "externalUserId": "a"}
        self.ask("POST", EXCHANGE, bearer, json=request)
        self.ask("POST", OAUTH, json={"grant_type": keys["grant_type"]})
        self.embed(f"Bearer {keys['twice']} {keys['twice']}")
        self.embed(None, headers={"x-api-key": keys["X-API-Key"], "api-key": keys["X-API-Key"]})
        self.embed(None, headers={"cookie": f"key={keys['cookie']}"})
        return keys

    def unlocked(self) -> dict[str, str]:
        """Return the answers of the open routes without a credential."""
        return {
            path: f"{(answer := get(self.gateway.url + path)).headers}{answer.text}"
            for path in OPEN
        }

    def end(self) -> None:
        """Stop the gateway, so that everything is written."""
        self.gateway.signal(signal.SIGTERM)
        self.gateway.wait()
        self._client.close()
        self.store.database.dispose()


MISPLACED = (
    "model", "model of a provider", "query", "value in the query", "query of the control plane",
    "query of usage", "name of a parameter", "path", "id in the path", "model in the path",
    "name of a field", "value of a field", "value of a known field", "allowed_providers",
    "fallbacks", "input", "X-Request-Id", "X-Request-Id of an act", "admin body", "scopes",
    "audience", "grant_type", "twice", "X-API-Key", "cookie",
)  # fmt: skip


@pytest.fixture(scope="module")
def output(minilm: Minilm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayOutput]:
    """The output of a gateway that has been stopped."""
    folder = tmp_path_factory.mktemp("output")
    with Upstream() as upstream:
        (folder / "embedway.toml").write_text(
            f'[providers.openai]\nbase_url = "{upstream.url}/openai/v1"\n'
            f'api_key = "{PROVIDER_KEY}"\n'
            '[[providers.openai.models]]\nid = "m"\nprice_per_mtok_usd = "1"\n'
        )
        gateway = Gateway(
            folder,
            log_level="debug",
            canaries=True,
            pepper=os.urandom(PEPPER_BYTES).hex(),
            redis_url=f"redis://:{REDIS_PASSWORD}@127.0.0.1:{free_port()}/0",
        ).start()
        try:
            session = Session(gateway, upstream)
            session.succeed()
            session.fail()
            misplaced = session.misplace()
            unlocked = session.unlocked()
            for command in COMMANDS:
                session.answers[command] = command_output(gateway, command)
            session.end()
            yield GatewayOutput(
                gateway,
                session.secrets,
                misplaced,
                session.answers | unlocked,
                unlocked,
                upstream.url,
            )
        finally:
            gateway.kill()


def command_output(gateway: Gateway, command: str, **env: str) -> str:
    """Return what a command prints."""
    ran = embedway(*command.split(), env=gateway.env | env, cwd=gateway.folder)
    return f"{ran.stdout}\n{ran.stderr}"


def distinct_part(text: str) -> str:
    """Return the part of a credential that differs from others."""
    if text.count(".") == 2:  # the signature of a token
        return text.rpartition(".")[2][:24]
    return (
        text.removeprefix(key_secret.PREFIX)[8:30]
        if text.startswith(key_secret.PREFIX)
        else text[-20:]
    )


def forms(text: str) -> set[bytes]:
    """Return the forms in which a secret may appear: plain, base64 at any offset, hex, escaped."""
    part = distinct_part(text).encode()
    encoded = {base64.b64encode(b"\0" * n + part)[4 * (n > 0) : -4] for n in range(3)}
    return {part, part.hex().encode(), *(each for each in encoded if len(each) > 12)}


def test_key_material_is_nowhere(output: GatewayOutput) -> None:
    """Keys in logs, errors and spend rows (CVE-2024-9606, CVE-2025-0330): none appears.

    Keys of the gateway and of providers, tokens, the pepper and passwords, right or wrong, whole or
    in part, are in no log, answer, metric, row or command output.
    """
    places = output.everywhere()
    assert any(b"answered" in each for each in places.values())
    for what, text in output.secrets.items():
        for form in forms(text):
            found = [where for where, content in places.items() if form in content]
            assert not found, (what, found)


@pytest.mark.parametrize("where", MISPLACED)
def test_misplaced_keys(output: GatewayOutput, where: str) -> None:
    """A key sent in a wrong place (CWE-532, CWE-209) is neither stored nor repeated."""
    found = [
        place for place, content in output.everywhere().items()
        if distinct_part(output.misplaced[where]).encode() in content
    ]  # fmt: skip
    assert not found


def test_hashes_of_keys_cannot_be_guessed(output: GatewayOutput) -> None:
    """Unsalted hashes at rest (CWE-759): without the pepper, no guess can be checked.

    No plain hash of a key is stored anywhere, only a digest made with the pepper.
    """
    stored = b"\0".join(output.everywhere().values())
    database = (output.gateway.folder / "data" / "embedway.db").read_bytes()
    keys = [each for each in output.secrets.values() if key_secret.is_well_formed(each)]
    assert len(keys) >= 4
    for key in keys:
        for name in ("md5", "sha1", "sha224", "sha256", "sha384", "sha512", "blake2b", "blake2s"):
            for digest in (hashlib.new(name, key.encode()).digest(),
                           hashlib.new(name, distinct_part(key).encode()).digest()):  # fmt: skip
                assert digest[:16] not in stored
                assert digest.hex()[:32].encode() not in stored
        assert hashlib.blake2b(key.encode(), digest_size=32).digest() not in stored
    pepper = bytes.fromhex(output.gateway.env["EMBEDWAY_PEPPER"])
    assert key_secret.digest(output.gateway.key, pepper=pepper) in database
    assert key_secret.digest(output.gateway.key, pepper=b"x" * 32) not in database
    assert not (output.gateway.folder / "data" / "pepper").exists()


def test_open_routes_tell_nothing(output: GatewayOutput) -> None:
    """Health routes that reveal keys and addresses (CVE-2025-11203, CVE-2026-12795): ours do not.

    They show no provider addresses, tenants, keys, end users or requests.
    """
    assert output.unlocked["/metrics"].count("embedway_") > 20
    for path, text in output.unlocked.items():
        for private in (
            output.upstream, output.upstream.removeprefix("http://"), "key_", "127.0.0.1", "@ada@",
            str(output.gateway.folder), REDIS_PASSWORD, PROVIDER_KEY, "api_key=", "redis://",
        ):  # fmt: skip
            known = path == "/openapi.json"
            assert private not in text or (known and private == "key_"), (path, private)
    assert "proj_" not in output.unlocked["/metrics"]


def test_labels_of_metrics(output: GatewayOutput) -> None:
    """Labels invented by clients (CWE-770, and a leak): labels only come from fixed lists."""
    labels = re.findall(r'(\w+)="([^"]*)"', output.unlocked["/metrics"])
    values = {name: {value for each, value in labels if each == name} for name, _ in labels}
    assert values.keys() <= {
        "route", "status", "model", "le", "provider", "outcome", "reason", "of", "percent",
        "deployment", "event", "version", "implementation",
    }  # fmt: skip
    assert values["route"] <= {
        "/v1/embeddings", "/api/v1/llm/embeddings", "/api/v1/models/serverless/embeddings"
    }  # fmt: skip
    assert values["provider"] <= {"openai", "local"}
    assert "invented" not in output.unlocked["/metrics"]


@pytest.fixture
def guarded(shared_postgres: Postgres, postgres_url: str) -> Iterator[str]:
    """The URL of an empty database, with a password in it."""
    address = postgres_url.partition("@")[2]
    name = address.rpartition("/")[2]
    shared_postgres.run(
        "DROP ROLE IF EXISTS guarded;"
        f"CREATE ROLE guarded SUPERUSER LOGIN PASSWORD '{DATABASE_PASSWORD}'"
    )
    yield f"postgresql://guarded:{DATABASE_PASSWORD}@{address}"
    shared_postgres.run("REASSIGN OWNED BY guarded TO embedway; DROP ROLE guarded", name)


def test_the_databases_password(output: GatewayOutput, guarded: str) -> None:
    """A password in command output (CWE-532): no command shows it, even if it is wrong."""
    wrong = guarded.replace(DATABASE_PASSWORD, f"{DATABASE_PASSWORD}-wrong")
    mistyped = guarded.replace("@", "@@") + "?sslmod=x"
    asked = {
        guarded: ("config show", "doctor", "db status"),
        wrong: ("doctor", "keys list", "serve"),
        guarded.replace("postgresql", "mysql"): ("config show", "serve"),
        mistyped: ("config show", "db status"),
    }
    for address, these in asked.items():
        for command in these:
            env = {"EMBEDWAY_DATABASE_URL": address}
            text = command_output(output.gateway, command, **env)
            assert DATABASE_PASSWORD not in text, (command, text)
            assert REDIS_PASSWORD not in text
    text = command_output(output.gateway, "db status", EMBEDWAY_DATABASE_URL=guarded)
    assert "guarded" in text, text


# On the wire


@pytest.fixture(scope="module")
def plain(gateway: Gateway) -> Gateway:
    """The gateway that all tests here share."""
    return gateway


def sent(gateway: Gateway, *headers: str, path: str = "/v1/models", method: str = "GET") -> int:
    """Return the status of a request with these raw headers; 400 if the connection is closed."""
    content = b"" if method == "GET" else body(input="a")
    head = [f"{method} {path} HTTP/1.1", "host: test", f"content-length: {len(content)}", *headers]
    with Wire(gateway) as wire:
        # A head that is too long is refused before it is complete, and the connection is closed.
        with suppress(BrokenPipeError, ConnectionResetError):
            wire.send("\r\n".join([*head, "", ""]).encode("latin-1") + content)
        answer = wire.reply()
    return 400 if answer is None else answer.status_code


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/models"])
def test_credentials_that_are_there_twice(gateway: Gateway, path: str) -> None:
    """Two credentials (CWE-436): a proxy may check the other one, so both are refused."""
    good = f"authorization: Bearer {gateway.key}"
    method = "POST" if path == "/v1/embeddings" else "GET"
    assert sent(gateway, good, path=path, method=method) == 200
    for other in (
        f"authorization: Bearer {key_secret.generate_secret()}",
        "Authorization: Bearer x",
        good,
    ):
        for pair in ((good, other), (other, good)):
            assert sent(gateway, *pair, path=path, method=method) in {400, 401}, pair


def test_end_users_that_are_there_twice(gateway: Gateway) -> None:
    """Two end users (CWE-290): a client cannot override the one that a proxy sets."""
    good = f"authorization: Bearer {gateway.key}"
    for names in (("ann", "bob"), ("bob", "ann")):
        headers = [f"x-on-behalf-of: {each}" for each in names]
        assert sent(gateway, good, *headers, path="/v1/embeddings", method="POST") == 400


def test_headers_with_line_breaks(gateway: Gateway) -> None:
    """Header injection (CWE-93, CWE-113): no value can end its line, in a request or an answer."""
    key = f"authorization: Bearer {gateway.key}"
    for value in ("a\nx-on-behalf-of: root", "a\rx: y", "a\0b", "a\x0bb"):
        for name in ("x-on-behalf-of", "x-request-id"):
            status = sent(gateway, key, f"{name}: {value}", path="/v1/embeddings", method="POST")
            assert status == 400 or (name == "x-request-id" and status == 200), (name, value)
    for value in ("a%0d%0aset-cookie: x", "a b", "x" * 129, "\xff"):
        answer = httpx.get(
            f"{gateway.url}/v1/organization/audit_logs",
            headers=[(b"x-request-id", value.encode("latin-1"))],
        )
        assert "set-cookie" not in answer.headers
        assert answer.headers.get("x-request-id", "") in {"", value} or answer.status_code == 401


def test_headers_that_are_too_long(gateway: Gateway) -> None:
    """A credential of a megabyte (CWE-400) is refused, and others are served."""
    for name in ("authorization: Bearer ", "x-on-behalf-of: ", "x-request-id: ", "x-any: "):
        status = sent(gateway, f"{name}{'a' * 2**20}")
        assert status in {400, 401, 431}, name
    key = f"authorization: Bearer {gateway.key}"
    assert sent(gateway, key, f"x-on-behalf-of: {'a' * 9000}", path="/v1/embeddings",
                method="POST") == 400  # fmt: skip
    assert gateway.embed(input="a").status_code == 200


def test_the_host_says_nothing(gateway: Gateway) -> None:
    """A route read from the Host header (CVE-2026-49468): only the path selects the route."""
    for host in ("test/livez?", "test/livez#", "test/openapi.json?x=", "livez", "a@b/metrics?",
                 "[::1]/livez?", "/livez", "test\\livez?"):  # fmt: skip
        for path in ("/v1/organization/projects", "/v1/models", "/v1/organization/costs"):
            for line in (path, f"http://test/livez{path}", f"//livez{path}", f"{path}/livez",
                         f"/livez/..{path}", f"/livez;{path}", f"{path}%2f..%2flivez"):  # fmt: skip
                with Wire(gateway) as wire:
                    wire.send(f"GET {line} HTTP/1.1\r\nhost: {host}\r\n\r\n".encode())
                    answer = wire.reply()
                assert answer is None or answer.status_code in {400, 401, 404}, (host, line)


def test_a_flood_of_an_admin_body(gateway: Gateway) -> None:
    """Memory taken by an endless body (CWE-400): nothing is read after a megabyte."""

    def resident() -> int:
        assert gateway.process is not None
        status = Path(f"/proc/{gateway.process.pid}/status").read_text()
        [kib] = re.findall(r"VmRSS:\s+(\d+)", status)
        return int(kib) * 1024

    before = resident()
    for path in ("/v1/organization/projects", EXCHANGE, OAUTH):
        with Wire(gateway) as wire:
            wire.send(
                f"POST {path} HTTP/1.1\r\nhost: test\r\nauthorization: Bearer {gateway.key}\r\n"
                "content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n".encode()
            )
            chunk = b"100000\r\n" + b" " * 2**20 + b"\r\n"
            try:
                for _ in range(64):
                    wire.send(chunk)
            except OSError:
                continue
            answer = wire.reply()
        assert answer is None or answer.status_code == 413, path
    assert resident() - before < 32 * 2**20
