"""Rights that similar gateways gave away, above all LiteLLM, each with its class.

A key or token never gets more than an administrator gave it: not by what it sends, not from a
cache, not from another tenant. The tests run on a whole gateway with two tenants, in this process.
"""

import hashlib
import re
from collections.abc import Iterator
from typing import Any

import pytest
from attacked import ADMIN, EXCHANGE, OAUTH, House, check, open_house, until
from conftest import Minilm

from embedway.api.embeddings import PATHS
from embedway.core import clock
from embedway.organization import key_secret


@pytest.fixture(scope="module")
def house(minilm: Minilm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A gateway on SQLite."""
    with open_house(tmp_path_factory.mktemp("house")) as house:
        yield house


# Minting rights


def escalations(house: House) -> list[dict[str, Any]]:
    """Return requests of a key that may issue keys which must be refused."""
    scopes = (
        *(["*"], ["admin"], ["keys"], ["embeddings", "admin"], ["all"], [""], ["Embeddings"]),
        *("admin", "*", [], None, {}, {"admin": True}, [["admin"]], [None], [True], True, 1),
        *(["embeddings\0"], ["embeddings "], ["/*"], ["embeddings", "embeddings"], ["tokens"]),
    )
    fields = {
        "allowed_routes": ["/*"], "user_role": "proxy_admin", "role": "owner", "is_admin": True,
        "admin": True, "permissions": ["*"], "issued_by": None, "id": house.theirs.key_id,
        "project_id": house.theirs.project, "digest": "00", "hint": "x", "revoked_ms": None,
        "value": key_secret.generate_secret(), "key": key_secret.generate_secret(),
        "team_id": house.theirs.project,
        "expires_ms": 1, "created_ms": 1, "metadata": {}, "owner": {"role": "owner"},
    }  # fmt: skip
    lists = (None, [], ["*"], ["auto", "*"], "auto", "*", [".*"], ["auto", "gemini:m"], {}, True)
    ends = (None, True, "never", 10**12, 4_000_000_000, -1, 0, 1e300, 4_000_000_000.5, [])
    return [
        *({"scopes": each} for each in scopes),
        *({name: value} for name, value in fields.items()),
        *({"models": each} for each in lists),
        *({"providers": each} for each in lists),
        *({"expires_at": each} for each in ends),
        *({"expires_in_seconds": each} for each in (None, 10**9, True, "1", 0, -1)),
    ]


def issuing(house: House, **more: Any) -> tuple[str, str]:
    """Return the id and secret of a key that may issue keys, and little else."""
    return house.key(house.mine.project, "embeddings", "usage", "keys", **more)


def test_minting_wildcard_rights(house: House) -> None:
    """Rights of a new key taken as sent (CVE-2026-47101): none go beyond its issuer's.

    It tries wildcards, empty values, unknown fields and values of other types.
    """
    ends_ms = clock.now_ms() + 3_600_000
    key, _ = issuing(house, models=("auto",), providers=("local",), expires_ms=ends_ms)
    path = f"/v1/organization/projects/{house.mine.project}/api_keys"
    within = {
        "name": "x",
        "scopes": ["embeddings"],
        "models": ["auto"],
        "providers": ["local"],
        "expires_in_seconds": 60,
    }
    assert house.ask("POST", path, key, json=within).status_code == 200
    before = house.rows()["keys"]
    for each in escalations(house):
        request = within | each
        if "expires_at" in each:
            del request["expires_in_seconds"]
        answer = house.ask("POST", path, key, json=request)
        check(answer)
        assert answer.status_code in {400, 403}, (each, answer.text)
    for name in ("models", "providers", "expires_in_seconds"):
        request = {field: value for field, value in within.items() if field != name}
        assert house.ask("POST", path, key, json=request).status_code == 403, name
    assert house.rows()["keys"] == before


def test_fields_that_are_there_twice(house: House) -> None:
    """A repeated field (CWE-436, where parsers differ in which one they take) gains no rights."""
    key, _ = issuing(house)
    path = f"/v1/organization/projects/{house.mine.project}/api_keys"
    for scopes in ('"scopes":["embeddings"],"scopes":["admin"]',
                   '"scopes":["admin"],"scopes":["embeddings"]',
                   '"scopes":["embeddings"],"\\u0073copes":["keys"]'):  # fmt: skip
        answer = house.ask(
            "POST", path, key, content=f'{{"name":"x",{scopes}}}'.encode(),
            headers={"content-type": "application/json"},
        )  # fmt: skip
        assert answer.status_code == 400
    for project in ({}, {"project_id": house.theirs.project}):
        answer = house.ask("POST", f"{path}?project_id={house.theirs.project}", key,
                           json={"name": "x", "scopes": ["embeddings"], **project})  # fmt: skip
        assert answer.status_code == 400 or answer.json()["project_id"] == house.mine.project


def test_a_star_is_no_wildcard(house: House) -> None:
    """A stored wildcard (CVE-2026-47101): a list with `*` only allows the name `*`."""
    for field in ("models", "providers"):
        key, _ = house.key(house.mine.project, "embeddings", **{field: ("*",)})
        assert house.embed(key).status_code == 403
        assert house.embed(key, model="auto").status_code == 403
        assert house.ask("GET", "/v1/models", key).json()["data"] == []


def low(house: House) -> dict[str, str]:
    """Return credentials without admin rights: a key of each project, and every kind of token."""
    mine = house.mine
    plain, _ = house.key(mine.project, "embeddings")
    reader, _ = house.key(mine.project, "usage")
    request = {
        "grant_type": "client_credentials",
        "client_id": mine.key_id,
        "client_secret": mine.secret,
    }
    client = house.ask("POST", OAUTH, json=request).raise_for_status().json()["access_token"]
    return {
        "a plain key": plain,
        "a key that reads usage": reader,
        "a token of an end user": house.exchanged(mine.secret, permissions=["embeddings", "usage"]),
        "a token of a client": client,
    }


def test_low_rights_reach_no_admin_route(house: House) -> None:
    """Admin routes open to lesser roles and tokens (CVE-2024-5710, CVE-2025-0628): none is."""
    before = house.rows()
    ids = {"project_id": house.mine.project, "key_id": house.mine.key_id, "end_user_id": "eve"}
    credentials = low(house)
    before = house.rows()
    for operation in house.operations():
        sums = operation.path.endswith(("/usage/embeddings", "/usage/refusals", "/costs"))
        if not operation.path.startswith("/v1/organization") or sums:
            continue
        for whose, key in credentials.items():
            answer = house.ask(key=key, **operation.request(ids))
            assert answer.status_code == 403, (whose, operation.method, operation.path)
    assert house.rows() == before


def test_a_key_changes_no_key_nor_itself(house: House) -> None:
    """Own fields that only an administrator may set (CVE-2026-47102): no key can set them."""
    key, id = issuing(house)
    issued = house.ask(
        "POST", f"/v1/organization/projects/{house.mine.project}/api_keys", key, json={"name": "x",
        "scopes": ["embeddings"]},
    ).json()["id"]  # fmt: skip
    before = house.rows()
    for target in (id, issued, house.mine.key_id):
        path = f"/v1/organization/projects/{house.mine.project}/api_keys/{target}"
        for request in ({"scopes": ["admin"]}, {"name": "y"}, {"limits": None}, {"budgets": []},
                     {"expires_at": None}, {"user_role": "proxy_admin"}):  # fmt: skip
            for method in ("POST", "PUT", "PATCH"):
                answer = house.ask(method, path, key, json=request)
                assert answer.status_code in {400, 403, 404, 405}, (method, request, answer.text)
    assert house.rows() == before


def test_exchange_for_more(house: House) -> None:
    """A token with more rights than its key (CWE-269) is always refused."""
    may, _ = house.key(house.mine.project, "tokens", "embeddings")
    token = house.exchanged(house.mine.secret)
    request = {"audience": "embedway", "externalUserId": "ada"}
    for more in (
        *({"permissions": each} for each in (["*"], ["admin"], ["keys"], ["tokens"], ["usage"],
                                             ["on_behalf_of"], [], "admin", [None], {}, [[]])),
        *({"externalUserId": each} for each in ("*", "", None, "a\0", ["ada"], "ä", "a" * 151)),
        *({"audience": each} for each in ("*", "", None, ["embedway"], "other")),
        *({"expiresIn": each} for each in (299, 2_592_001, True, "3600", 1e400)),
        *({each: "admin"} for each in ("scopes", "scope", "role", "key", "sub", "iss")),
    ):  # fmt: skip
        answer = house.ask("POST", EXCHANGE, may, json=request | more)
        assert answer.status_code in {400, 403}, (more, answer.text)
    assert house.ask("POST", EXCHANGE, token, json=request).status_code == 403
    assert house.ask("POST", EXCHANGE, house.admin, json=request).status_code == 403


def test_end_users_grant_nothing(house: House) -> None:
    """An identity header as a right (CWE-290): `X-On-Behalf-Of` never grants anything."""
    path = f"/v1/organization/projects/{house.mine.project}/api_keys"
    for end_user in ("admin", house.theirs.key_id, house.theirs.project, "ann-of-theirs", "*"):
        headers = {"x-on-behalf-of": end_user, "x-user-id": end_user, "x-forwarded-user": "root"}
        for key in low(house).values():
            assert house.ask("GET", path, key, headers=headers).status_code in {400, 403}
        plain, _ = house.key(house.mine.project, "embeddings")
        answer = house.embed(plain, headers=headers)
        assert answer.status_code in {400, 403}, end_user


def test_an_issuer_that_ended(house: House) -> None:
    """Credentials that outlive their source (CVE-2026-12772, -12796): they end with it."""
    key, id = issuing(house, expires_ms=clock.now_ms() + 3_600_000)
    project = house.mine.project
    path = f"/v1/organization/projects/{project}/api_keys"
    request = {"name": "x", "scopes": ["embeddings"], "expires_in_seconds": 600}
    issued = house.ask("POST", path, key, json=request).json()["value"]
    parent, parent_id = house.key(project, "embeddings", "tokens")
    tokens = [house.exchanged(parent, lasts) for lasts in ("ada", "bob")]
    assert house.embed(issued).status_code == 200
    assert all(house.embed(each).status_code == 200 for each in tokens)
    house.ahead_ms = 3_700_000
    try:
        assert house.embed(issued).status_code == house.embed(key).status_code == 401
        assert house.ask("POST", path, key, json=request).status_code == 401
        assert all(house.embed(each).status_code == 401 for each in tokens)
    finally:
        house.ahead_ms = 0
    house.acts.revoke_key(ADMIN, id, project_id=project)
    house.acts.revoke_key(ADMIN, parent_id, project_id=project)
    for each in (key, issued, parent, *tokens):
        until(lambda: house.embed(each).status_code == 401)  # noqa: B023  # called at once


# Caches


def test_keys_with_one_prefix(house: House) -> None:
    """A cache keyed by the start of a credential (CVE-2026-35030): ours uses all of it."""
    there, other = with_one_prefix(), with_one_prefix()
    assert there[:-9] == other[:-9] != ""
    for first, second in ((there, other),):
        house.add(first)
        assert house.embed(second).status_code == 401
        assert house.embed(first).status_code == 200
        assert house.embed(second).status_code == 401
    house.add(other)
    until(lambda: house.embed(other).status_code == 200)


def with_one_prefix() -> str:
    """Return a new secret that differs from the others only at its end."""
    random = key_secret.PREFIX + "Z" * 29 + key_secret.generate_secret()[-9:-6]
    return random + key_secret._checksum(random)


def test_tokens_with_one_prefix(house: House) -> None:
    """The same for tokens, which all begin alike: one does not affect the next."""
    tokens = {name: house.exchanged(house.mine.secret, name) for name in ("ada", "adb")}
    assert tokens["ada"][:80] == tokens["adb"][:80]
    for _ in range(2):
        for name, token in tokens.items():
            assert house.embed(token, headers={"x-on-behalf-of": name}).status_code == 200
            for changed in (token[:-4] + "AAAA", token + "A", token[:-1], token[:40]):
                assert house.embed(changed).status_code == 401
            head, _, tail = token.rpartition(".")
            other = tokens["adb" if name == "ada" else "ada"].rpartition(".")[2]
            assert house.embed(f"{head}.{other}").status_code == 401
            assert tail


def test_a_refusal_is_soon_forgotten(house: House) -> None:
    """Denial of service by a negative cache: a key refused before it exists works once created."""
    key = key_secret.generate_secret()
    for _ in range(3):
        assert house.embed(key).status_code == 401
    id = house.add(key)
    until(lambda: house.embed(key).status_code == 200)
    house.acts.revoke_key(ADMIN, id, project_id=house.mine.project)
    until(lambda: house.embed(key).status_code == 401)


# Other tenants


def test_another_tenant(house: House) -> None:
    """Another tenant's objects by their ids (CWE-639; CVE-2024-5710's teams) cannot be read.

    With all rights in one's own project, on every route: objects of others and objects that do not
    exist get the same answer, and nothing of the other tenant is in any answer.
    """
    mine, theirs = house.mine, house.theirs
    nobody = {"project_id": "proj_" + "0" * 16, "key_id": "key_" + "0" * 16, "end_user_id": "nn"}
    other = {"project_id": theirs.project, "key_id": theirs.key_id, "end_user_id": "ann-of-theirs"}
    other |= house.files
    nobody |= {"file_id": "file-" + "0" * 24, "batch_id": "batch_" + "0" * 24}
    before = house.rows()
    for operation in house.operations():
        if operation.path in {OAUTH, EXCHANGE, "/metrics", *PATHS}:
            continue
        names = operation.names("path")
        # The other tenant's objects in its project, and as if in ours.
        for project in [{}, {"project_id": mine.project}] if len(names) > 1 else [{}]:
            answers: list[tuple[int, str]] = []
            for ids in (other | project, nobody | project):
                answer = house.ask(key=mine.secret, **operation.request({"id": "auto", **ids}))
                # A report's cursor has the second in which its first page was asked for.
                text = re.sub(r'"next_page":"[^"]+"', "", answer.text)
                for name in names:
                    text = text.replace(ids.get(name) or "auto", name)
                answers.append((answer.status_code, text))
            assert answers[0] == answers[1], (operation.path, answers)
            assert answers[0][0] in {403, 404} or not project_of(names), (operation.path, answers)
            assert "-of-theirs" not in answers[0][1], operation.path
    assert house.rows() == before


def project_of(names: list[str]) -> bool:
    """Whether these parameters name something that belongs to a project."""
    return "project_id" in names


def test_another_tenants_usage(house: House) -> None:
    """Everyone's spending for anyone (CVE-2024-5225's /global/spend): tenants see only their own.

    This holds for every filter and grouping. Other tenants' ids are treated as unknown.
    """
    mine, theirs = house.mine, house.theirs
    groups = ["project_id", "user_id", "api_key_id", "model", "provider", "metadata.team"]
    filters = {
        "project_ids": (theirs.project, "proj_none"),
        "api_key_ids": (theirs.key_id, "key_none"),
        "user_ids": ("ann-of-theirs", "nobody"),
        "metadata.team": ("team-of-theirs", "none"),
    }
    token = house.exchanged(mine.secret, permissions=["usage"])
    for path in ("/v1/organization/usage/embeddings", "/api/v1/llm/usage/embeddings",
                 "/v1/organization/costs"):  # fmt: skip
        since = {"start_time": (now_s := clock.now_ms() // 1000) - 86_400, "end_time": now_s + 60}
        by = [each for each in groups if "costs" not in path or each in groups]
        answer = house.ask("GET", path, house.admin, params={**since, "group_by": by[:4]})
        seen = answer.status_code == 200 and theirs.project in answer.text
        assert seen, answer.text
        for key in (mine.secret, token):
            plain = house.ask("GET", path, key, params={**since, "group_by": by[:4]})
            assert theirs.project not in plain.text
            for name, (real, unreal) in filters.items():
                both = [
                    house.ask("GET", path, key, params={**since, "group_by": by[:1], name: each})
                    for each in (real, unreal)
                ]
                assert both[0].status_code == both[1].status_code
                assert both[0].text.replace(real, "") == both[1].text.replace(unreal, "")
                assert "-of-theirs" not in both[0].text.replace(real, "")


def test_another_end_users_usage(house: House) -> None:
    """An end user's token (CWE-639) reads only the end user's own usage."""
    bob, ada = ({"x-on-behalf-of": each} for each in ("bob-of-mine", "ada-of-mine"))
    for each in (bob, ada):
        assert house.embed(house.mine.secret, headers=each).status_code == 200
    token = house.exchanged(house.mine.secret, "ada-of-mine", permissions=["usage"])
    since = {"start_time": (now_s := clock.now_ms() // 1000) - 86_400, "end_time": now_s + 60}
    for path in ("/v1/organization/usage/embeddings", "/v1/organization/costs"):
        answer = house.ask("GET", path, token, params={**since, "group_by": "user_id"})
        assert "ada-of-mine" in answer.text
        assert "bob-of-mine" not in answer.text
        for other in ("bob-of-mine", "nobody"):
            asked = {**since, "user_ids": other}
            assert house.ask("GET", path, token, params=asked).status_code == 403


def test_stolen_digests(house: House) -> None:
    """Unsalted hashes of keys, as in LiteLLM: our digests are keyed with a pepper."""
    key, other = key_secret.generate_secret(), b"another pepper".ljust(32)
    mine = key_secret.digest(key, pepper=house.store.pepper)
    assert mine != key_secret.digest(key, pepper=other) != key_secret.digest(key, pepper=b"")
    house.add(key)
    stored = "".join(house.rows()["keys"])
    assert repr(mine) in stored
    for name in sorted(hashlib.algorithms_guaranteed - {"shake_128", "shake_256"}):
        for guess in (key, key.removeprefix(key_secret.PREFIX)):
            digest = hashlib.new(name, guess.encode())
            assert repr(digest.digest()) not in stored
            assert digest.hexdigest() not in stored
    assert repr(hashlib.blake2b(key.encode(), digest_size=32).digest()) not in stored
