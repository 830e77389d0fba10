"""Attacks that succeeded against similar gateways, above all LiteLLM, each with its class.

They run on a whole gateway with two tenants, in this process. Leaks are in `test_known_leaks`.
Every field in `/openapi.json` is attacked, so new fields are included.
"""

from collections.abc import Collection, Iterator
from typing import Any

import pytest
from attacked import (
    DOOR,
    EXCHANGE,
    OAUTH,
    PROVIDER_KEY,
    House,
    Operation,
    check,
    open_house,
)
from conftest import Minilm
from outside_issuer import b64, hs256, raw

from embedway.api.embeddings import PATHS
from embedway.auth.authenticator import Authenticator
from embedway.core import clock
from embedway.core.errors import InvalidKey
from embedway.organization import key_secret
from embedway.organization.directory import Directory
from embedway.testing import Upstream

SQL = (
    "' OR '1'='1' UNION SELECT digest FROM keys; DROP TABLE keys; --",
    '"); UPDATE keys SET scopes=\'["admin"]\'; /* %s %(id)s :id $1 ?',
    "\\'; x\0'",
)
IN_JSON = (*SQL, [[{"$ne": "\ud800'"}]], 2**70)
NO_SPACES = "';UPDATE/**/keys/**/SET/**/revoked_ms=NULL;--"


@pytest.fixture(scope="module")
def house(minilm: Minilm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A gateway on SQLite."""
    with open_house(tmp_path_factory.mktemp("house")) as house:
        yield house


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def any_house(
    request: pytest.FixtureRequest, minilm: Minilm, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[House]:
    """A gateway on either database."""
    if request.param == "sqlite":
        yield request.getfixturevalue("house")
        return
    url = request.getfixturevalue("shared_postgres").url
    with open_house(tmp_path_factory.mktemp("on-postgres"), database_url=url) as house:
        yield house


def credential(house: House, operation: Operation) -> str:
    """Return a credential with the rights for an operation, so that requests reach the database."""
    of_projects = operation.path in {EXCHANGE, *PATHS} or operation.is_of_files
    return house.mine.secret if of_projects else house.admin


def attacks(operation: Operation, ids: dict[str, str]) -> Iterator[tuple[dict[str, Any], Any]]:
    """Yield every request with SQL or an impossible value in one of its places."""
    for put in SQL:
        for name in operation.names("path"):
            yield operation.request(ids, at=("path", name), put=put), put
        for name in operation.names("query"):
            yield operation.request(ids, at=("query", name), put=put), put
            yield operation.request(ids, at=("query", put), put="x"), put
        if "group_by" in operation.names("query"):
            field = f"metadata.{put}"
            yield operation.request(ids, at=("query", "group_by"), put=field), put
            yield operation.request(ids, at=("query", field), put=put), put
    for name in operation.names("header"):
        yield operation.request(ids, at=("header", name), put=NO_SPACES), NO_SPACES
    # All embeddings paths are one operation, so only one of them gets all values.
    if operation.path not in PATHS.keys() - {DOOR}:
        for place in operation.places():
            for put in IN_JSON:
                yield operation.request(ids, at=("body", place), put=put), put


# SQL injection


def test_sql_in_every_field(any_house: House) -> None:
    """SQL injection in filters and fields (CVE-2024-4890, -5225): SQL is stored or refused as text.

    With all rights, in every path, query, header and body of every route, there is never a 5xx
    or a word of the database, and nothing else is read or changed.
    """
    house = any_house
    tenant = house.tenant("attacked")
    ids = {"project_id": tenant.project, "key_id": tenant.key_id, "end_user_id": "eve"}
    ids |= house.files
    ids["start_time"] = str(clock.now_ms() // 1000 - 86_400)  # so that there are records to read
    before = house.rows()
    made = 0
    for operation in house.operations():
        key = credential(house, operation)
        for request, put in attacks(operation, ids | {"id": "auto"}):
            request["headers"].setdefault("x-request-id", NO_SPACES)
            answer = house.ask(key=key, **request)
            sent = put if isinstance(put, str) else ""
            check(answer, sent=sent)
            made += operation.method == "POST" and answer.status_code == 200
            if operation.method == "GET" and sent and answer.status_code == 200:
                assert house.theirs.key_id not in answer.text, (request, answer.text)
            if operation.method == "DELETE" and "/end_users/" not in operation.path:
                assert answer.status_code == 404, request
    after = house.rows()
    for table in ("keys", "projects", "end_users", "installation"):
        lost = {each for each in before[table] - after[table] if tenant.project not in each}
        assert not lost, table
        assert len(after[table]) - len(before[table]) <= made
    assert house.ask("GET", "/v1/models", tenant.secret).status_code in {200, 401}
    assert house.embed(house.theirs.secret).status_code == 200


def credentials(house: House) -> Iterator[str]:
    """Return what a stranger may send as `Authorization`: SQL as a key or in a token."""
    claims = {"iss": "embedway", "aud": "embedway", "exp": 4e9, "key": SQL[0], "permissions": []}
    for text in SQL[:2]:
        yield f"Bearer {text}"
        yield f"Bearer sk-gateway-{text}"
        yield text
        for header in ({"alg": "HS256", "kid": text}, {"alg": text}, {"alg": "none"}):
            token = raw(header, claims | {"sub": text, "jti": text}, hs256(b"x"))
            yield f"Bearer {token}"
        yield f"Basic {b64(f'{text}:{text}'.encode())}"
    yield f"Bearer {b64(SQL[0].encode())}.{b64(SQL[0].encode())}.{b64(b'x')}"
    yield f"Bearer {house.mine.secret}'--"
    yield f"Bearer {house.mine.key_id}"
    yield f"Bearer {key_secret.generate_secret()}"


def test_sql_in_the_credential(any_house: House) -> None:
    """SQL injection before authentication, by the error path of the key check (CVE-2026-42208).

    Also a missing check on some route (CVE-2026-12795, -12773). Whatever is in Authorization, every
    route that needs a key answers 401, and no row of any table changes.
    """
    house = any_house
    before = house.rows()
    ids = {"project_id": house.mine.project, "key_id": house.mine.key_id, "end_user_id": "eve"}
    ids |= house.files
    for operation in house.operations():
        for authorization in credentials(house):
            request = operation.request(ids | {"id": "auto"})
            request["headers"] = {"authorization": authorization.encode("latin-1", "replace")}
            answer = house.ask(**request)
            check(answer, sent=authorization)
            if not operation.open:
                assert answer.status_code == 401, (operation.path, authorization, answer.text)
    for text in SQL:
        fields = {"grant_type": "client_credentials", "client_id": text, "client_secret": text}
        for answer in (
            house.ask("POST", OAUTH, json=fields),
            house.ask("POST", OAUTH, data=fields),
        ):
            check(answer, sent=text)
            assert answer.status_code == 401
    assert house.rows() == before


def test_malformed_keys_meet_no_database(house: House) -> None:
    """Brute force of keys (CWE-307): the checksum refuses invalid keys without a lookup."""
    asked: list[bytes] = []

    class CountingDirectory(Directory):
        async def find_known_digests(self, digests: Collection[bytes]) -> Collection[bytes]:
            asked.extend(digests)
            return await super().find_known_digests(digests)

    directory = CountingDirectory(house.store.database)
    authenticator = Authenticator(directory, pepper=house.store.pepper, now_ms=clock.now_ms)

    async def guess(key: str) -> None:
        with pytest.raises(InvalidKey):
            await authenticator.authenticate(f"Bearer {key}".encode(), None)

    whole = key_secret.generate_secret()
    others = [whole[:-1] + each for each in key_secret._ALPHABET if each != whole[-1]]
    for key in (*others, whole[:-1], whole + "0", whole.upper(), whole + " x"):
        house.run(guess, key)
    assert asked == []
    house.run(guess, whole)
    assert len(asked) == 1


# Upstream calls and code execution


def test_addresses_in_a_request(house: House) -> None:
    """Server-side request forgery by `api_base` (CVE-2024-6587): no request sets a URL or key.

    However such a field is spelled and wherever it is, it is refused without a call.
    """
    with Upstream() as elsewhere:
        house.upstream.reset()
        for name in (
            *("api_base", "base_url", "apiBase", "API-BASE", "baseURL", "base url", "url", "host"),
            *("api_key", "apiKey", "authorization", "headers", "extra_headers", "default_headers"),
            *("organization", "api_version", "endpoint", "proxy", "model", "input", "key", "token"),
        ):
            value = f"{elsewhere.url}/openai/v1"
            bodies = [{"extra_body": {name: each}} for each in (value, {"x": value}, None)]
            if name not in {"model", "input"}:
                bodies.append({name: value})
            for fields in bodies:
                body = {"input": "a", "model": "openai:m", **fields}
                answer = house.ask("POST", DOOR, house.mine.secret, json=body)
                assert answer.status_code == 400, (fields, answer.text)
                assert PROVIDER_KEY not in answer.text
        assert house.upstream.calls == []
        for model in (f"openai:{elsewhere.url}/v1", f"{elsewhere.url}/v1:m", "openai:m@[::1]"):
            assert house.embed(house.mine.secret, model=model).status_code != 500
        for header in ("host", "x-forwarded-host", "x-api-base", "forwarded", "x-original-url"):
            headers = {header: elsewhere.url.removeprefix("http://")}
            assert house.embed(house.mine.secret, headers=headers).status_code == 200
        assert elsewhere.calls == []


def test_paths_in_a_models_name(house: House) -> None:
    """Another route of a provider by the model's name (CWE-22): the name stays one path segment."""
    house.upstream.reset()
    names = ("../../v1/files", "..%2f..%2ffiles", "m/../../x", "m?key=1", "m#x", "m%00", "..", ".")
    for name in names:
        house.embed(house.mine.secret, model=f"gemini:{name}")
    paths = [each.path for each in house.upstream.calls]
    for path in paths:
        assert path.startswith("/gemini/v1beta/models/"), path
        assert "/files" not in path.replace("%2F", "").replace("%2f", ""), path
        assert "/../" not in path, path


TEMPLATES = (
    "{{7*7}}{% for x in ().__class__.__base__.__subclasses__() %}{{x}}{% endfor %}",
    "{0.__class__.__init__.__globals__} {text} %s %(text)s ${7*7} #{7*7} <%= 7*7 %>",
    "file:///etc/passwd", "os.environ/EMBEDWAY_PEPPER", "${EMBEDWAY_PEPPER}",
    "__import__('os').system('id')", "data:text/plain;base64,aGk=", "http://127.0.0.1/",
)  # fmt: skip


def test_texts_are_not_run(house: House) -> None:
    """Templates, eval, files and variables by a value (CVE-2024-2952, -4264, -5751, -10188).

    Texts and names are passed on unchanged, and never evaluated or rendered.
    """
    house.upstream.reset()
    for text in TEMPLATES:
        assert house.embed(house.mine.secret, input=[text], user=text[:50]).status_code == 200
        for purpose in ("query", "document"):
            answer = house.embed(house.mine.secret, input=text, model="auto", input_type=purpose)
            assert answer.status_code in {200, 400}
        made = house.ask("POST", "/v1/organization/projects", house.admin, json={"name": text})
        assert made.json()["name"] == text
    assert [each.body["input"] for each in house.upstream.calls] == [[each] for each in TEMPLATES]
    for path in ("../../../etc/passwd", "%2e%2e/%2e%2e/etc/passwd", "..%2f..%2fetc/passwd",
                 "/etc/passwd", "%00", "a\\..\\..\\x"):  # fmt: skip
        answer = house.ask("GET", f"/docs/assets/{path}")
        assert answer.status_code in {400, 404}, path
        assert "root:" not in answer.text


# Bodies


def test_bodies_that_cost_much(house: House) -> None:
    """Denial of service by a body (CVE-2024-8984): one too large, deep or long gets a 4xx."""
    ids = {"project_id": house.mine.project, "key_id": house.mine.key_id, "end_user_id": "eve"}
    ids |= house.files
    bodies = {
        "large": b'{"name":"' + b"a" * 2**21 + b'"}',
        "deep": b'{"name":' + b"[" * 20_000,
        "deep and whole": b'{"name":' + b"[" * 20_000 + b"]" * 20_000 + b"}",
        "objects": b'{"name":' + b'{"a":' * 20_000,
        "digits": b'{"name":' + b"9" * 50_000 + b"}",
        "exponent": b'{"name":1e999999999}',
        "fields": b"{" + b",".join(b'"f%d":1' % n for n in range(5_000)) + b"}",
        "items": b'{"name":"x","models":[' + b'"a",' * 20_000 + b'"a"]}',
        "limits": b'{"name":"x","id":"x","limits":[' + b"{}," * 20_000 + b"{}]}",
        "no UTF-8": b'{"name":"\xff\xfe"}',
        "NaN": b'{"name":NaN}',
        "nothing": b"",
    }
    before = house.rows()
    for operation in house.operations():
        if operation.method != "POST" or not operation.places():
            continue
        key = credential(house, operation)
        for what, body in bodies.items():
            request = operation.request(ids)
            del request["json"]
            request["headers"] = {"content-type": "application/json"}
            if operation.path in PATHS and what == "large":
                continue
            answer = house.ask(key=key, content=body, **request)
            assert 400 <= answer.status_code < 500, (operation.path, what, answer.text[:300])
            assert len(answer.content) < 2000, (operation.path, what)
            if what == "large":
                assert answer.status_code == 413, operation.path
    assert {name: rows for name, rows in house.rows().items() if not name.startswith("usage")} == {
        name: rows for name, rows in before.items() if not name.startswith("usage")
    }
