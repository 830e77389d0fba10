"""The gateway's own tokens: they never exceed the key they were issued for, and end with it."""

import asyncio
import base64
import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from conftest import Gateway
from outside_issuer import AUDIENCE, OutsideIssuer, Signer, b64, hs256, raw
from raw_http import until
from sqlalchemy import insert, update

from embedway.auth import exchange
from embedway.auth.authenticator import Authenticator
from embedway.auth.exchange import TokenRequest
from embedway.auth.tokens import GatewayTokens
from embedway.core import clock
from embedway.core.errors import EmbedwayError, Forbidden, InvalidKey, InvalidRequest
from embedway.core.keys import Caller
from embedway.core.project import DEFAULT_PROJECT
from embedway.organization import key_secret
from embedway.organization.directory import Directory
from embedway.storage import records, tables
from embedway.storage.store import Store, open_store

NOW_MS = 1_800_000_000_000
WITHIN_S = 10
EXCHANGE = "/api/v1/authentication/api-key/exchange-token"
OAUTH = "/api/v1/oauth2/token"


class Rig:
    """An authenticator over a real store."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.time_ms = NOW_MS
        self.tokens = GatewayTokens(pepper=store.pepper)
        self.forget()

    def forget(self) -> None:
        """Clear all caches, as if a moment had passed."""
        self.authenticator = Authenticator(
            Directory(self.store.database, availability=self.store.availability),
            pepper=self.store.pepper,
            now_ms=lambda: self.time_ms,
            tokens=self.tokens,
        )

    def key(self, *scopes: str, **more) -> tuple[str, str]:
        """Create a key and return its id and secret."""
        return add_key(self.store, *scopes, **more)

    def change(self, key_id: str, **values: object) -> None:
        with self.store.database.begin() as connection:
            connection.execute(
                update(tables.keys).where(tables.keys.c.id == key_id).values(**values)
            )
        self.forget()

    def caller(self, credential: str, on_behalf_of: bytes | None = None) -> Caller:
        bearer = f"Bearer {credential}".encode()
        return asyncio.run(self.authenticator.authenticate(bearer, on_behalf_of))

    def exchanged(self, credential: str, end_user: str = "ada", **more) -> str:
        wanted = TokenRequest(audience=AUDIENCE, end_user=end_user, **more)
        caller = self.caller(credential)
        made = exchange.issue_for_end_user(caller, wanted, tokens=self.tokens, now_ms=self.time_ms)
        return made.token

    def refusal(self, credential: str, on_behalf_of: bytes | None = None) -> EmbedwayError:
        with pytest.raises(EmbedwayError) as raised:
            self.caller(credential, on_behalf_of)
        return raised.value


def add_key(store: Store, *scopes: str, **more) -> tuple[str, str]:
    made, key = key_secret.issue_key("k", pepper=store.pepper, now_ms=1, scopes=scopes, **more)
    with store.database.begin() as connection:
        connection.execute(insert(tables.keys).values(records.to_row(key)))
    return key.id, made


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    opened = open_store(tmp_path_factory.mktemp("store"))
    yield opened
    opened.database.dispose()


@pytest.fixture
def rig(store: Store) -> Rig:
    return Rig(store)


def parts(token: str) -> tuple[dict, dict]:
    head, body, _ = token.split(".")
    first, second = (json.loads(base64.urlsafe_b64decode(each + "==")) for each in (head, body))
    return first, second


def test_an_exchanged_token(rig: Rig):
    """An exchanged token acts as its key for one end user, with the requested permissions."""
    id, key = rig.key("embeddings", "tokens", "usage", "on_behalf_of", "keys")
    token = rig.exchanged(key)
    caller = rig.caller(token)
    assert (caller.key_id, caller.on_behalf_of) == (id, "ada")
    assert caller.scopes == {"embeddings"}
    assert [each.id for each in caller.keys] == [id]
    head, claims = parts(token)
    assert head == {"alg": "HS256", "typ": "JWT"}
    assert (claims["iss"], claims["aud"], claims["sub"], claims["key"]) == (
        "embedway",
        [AUDIENCE],
        "ada",
        id,
    )
    assert claims["exp"] - claims["iat"] == 3600
    assert key not in str(claims)
    both = rig.exchanged(key, permissions=("usage", "embeddings", "usage"))
    assert rig.caller(both).scopes == {"usage", "embeddings"}
    assert rig.exchanged(key) != rig.exchanged(key)


@pytest.mark.parametrize(
    "permissions",
    [
        ["usage"], ["embeddings", "usage"], ["admin"], ["keys"], ["tokens"], ["on_behalf_of"],
        ["*"], ["embeddings", "*"], ["EMBEDDINGS"], [""], ["embeddings usage"], ["embeddings\0"],
    ],
)  # fmt: skip
def test_exchange_never_gives_more(rig: Rig, permissions: list[str]):
    """A permission that the key lacks, that no token may have, or that is a wildcard is refused."""
    _, key = rig.key("embeddings", "tokens", "keys", "on_behalf_of")
    with pytest.raises(Forbidden) as raised:
        rig.exchanged(key, permissions=permissions)
    assert raised.value.param == "permissions"


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"end_user": "*"}, "externalUserId"),
        ({"end_user": ""}, "externalUserId"),
        ({"end_user": "x" * 151}, "externalUserId"),
        ({"end_user": "é"}, "externalUserId"),
        ({"end_user": "a\n"}, "externalUserId"),
        ({"lifetime_s": 299}, "expiresIn"),
        ({"lifetime_s": 2_592_001}, "expiresIn"),
        ({"lifetime_s": -1}, "expiresIn"),
        ({"permissions": []}, "permissions"),
    ],
)
def test_wrong_exchanges(rig: Rig, more: dict, param: str):
    """Each field has its bounds, and the error names the field."""
    _, key = rig.key("embeddings", "tokens")
    with pytest.raises(InvalidRequest) as raised:
        rig.exchanged(key, **more)
    assert raised.value.param == param


def test_audience(rig: Rig):
    """Tokens are issued and accepted only for the audiences in the settings."""
    _, key = rig.key("embeddings", "tokens")
    wanted = TokenRequest(audience="elsewhere", end_user="ada")
    with pytest.raises(InvalidRequest, match='"embedway"'):
        exchange.issue_for_end_user(rig.caller(key), wanted, tokens=rig.tokens, now_ms=NOW_MS)
    elsewhere = GatewayTokens(pepper=rig.store.pepper, audiences=["elsewhere"])
    made = exchange.issue_for_end_user(rig.caller(key), wanted, tokens=elsewhere, now_ms=NOW_MS)
    assert isinstance(rig.refusal(made.token), InvalidKey)
    rig.tokens = GatewayTokens(pepper=rig.store.pepper, audiences=["embedway", "elsewhere"])
    rig.forget()
    assert rig.caller(made.token).on_behalf_of == "ada"


def test_who_may_exchange(rig: Rig):
    """Only a key with the scope `tokens` gets tokens. A token never does, whatever its key may."""
    _, without = rig.key("embeddings", "on_behalf_of", "usage", "keys")
    _, admin = rig.key("admin", project_id=None)
    _, key = rig.key("embeddings", "tokens")
    wanted = TokenRequest(audience=AUDIENCE, end_user="ada")
    client = exchange.issue_for_client(rig.caller(key), tokens=rig.tokens, now_ms=NOW_MS).token
    for credential in (without, admin, rig.exchanged(key), client):
        with pytest.raises(Forbidden, match="tokens"):
            exchange.issue_for_end_user(
                rig.caller(credential), wanted, tokens=rig.tokens, now_ms=NOW_MS
            )


def test_token_ends(rig: Rig):
    """A token ends exactly at its expiry, and never later than its key."""
    _, key = rig.key("embeddings", "tokens", expires_ms=NOW_MS + 600_000)
    short, long = rig.exchanged(key, lifetime_s=300), rig.exchanged(key, lifetime_s=86_400)
    assert parts(long)[1]["exp"] * 1000 == NOW_MS + 600_000
    for token, ends_ms in ((short, NOW_MS + 300_000), (long, NOW_MS + 600_000)):
        rig.time_ms = ends_ms - 1
        rig.caller(token)
        rig.time_ms = ends_ms
        assert isinstance(rig.refusal(token), InvalidKey)


def test_token_of_an_issued_key_ends_with_the_issuer(rig: Rig):
    """Rights that a key's issuer loses, the key's tokens lose too."""
    issuer, _ = rig.key("embeddings", "usage", "tokens", "keys", expires_ms=NOW_MS + 600_000)
    _, key = rig.key("embeddings", "usage", "tokens", issued_by=issuer)
    token = rig.exchanged(key, permissions=["embeddings", "usage"], lifetime_s=86_400)
    assert parts(token)[1]["exp"] * 1000 == NOW_MS + 600_000
    rig.change(issuer, scopes=["embeddings", "tokens", "keys"])
    assert rig.caller(token).scopes == {"embeddings"}
    rig.change(issuer, revoked_ms=1)
    assert isinstance(rig.refusal(token), InvalidKey)


def test_what_a_key_loses(rig: Rig):
    """Tokens lose the scopes that their key loses; the tokens of a revoked key stop working."""
    id, key = rig.key("embeddings", "usage", "tokens")
    token = rig.exchanged(key, permissions=["embeddings", "usage"])
    rig.change(id, scopes=["usage", "tokens"])
    assert rig.caller(token).scopes == {"usage"}
    rig.change(id, scopes=["embeddings", "usage"])
    assert "may no longer" in rig.refusal(token).message
    rig.change(id, scopes=["embeddings", "tokens"], revoked_ms=1)
    assert "revoked" in rig.refusal(token).message


def test_project_is_archived(tmp_path: Path):
    """Keys and tokens of an archived project are refused."""
    store = open_store(tmp_path)
    rig = Rig(store)
    _, key = rig.key("embeddings", "tokens")
    token = rig.exchanged(key)
    with store.database.begin() as connection:
        connection.execute(update(tables.projects).values(archived_ms=1))
    rig.forget()
    for credential in (key, token):
        assert "is archived" in rig.refusal(credential).message
    store.database.dispose()


def test_end_user_is_the_tokens(rig: Rig):
    """A token for one end user cannot act for another, even if its key can."""
    _, key = rig.key("embeddings", "tokens", "on_behalf_of")
    token = rig.exchanged(key)
    assert rig.caller(token, b"ada").on_behalf_of == "ada"
    for other in (b"bob", b"Ada", b"ada "):
        assert isinstance(rig.refusal(token, other), Forbidden)
    for wrong in (b"*", b"", b"\xe9", b"x" * 151):
        assert isinstance(rig.refusal(token, wrong), InvalidRequest)


def test_client_credentials(rig: Rig):
    """A client's token has its key's rights except creating keys and tokens."""
    _, key = rig.key("embeddings", "tokens", "keys", "usage", "on_behalf_of")
    made = exchange.issue_for_client(rig.caller(key), tokens=rig.tokens, now_ms=NOW_MS)
    caller = rig.caller(made.token, b"bob")
    assert caller.scopes == {"embeddings", "usage", "on_behalf_of"}
    assert caller.on_behalf_of == "bob"
    for scopes in (["admin"], ["tokens", "keys"]):
        _, useless = rig.key(*scopes, project_id=None if scopes == ["admin"] else DEFAULT_PROJECT)
        with pytest.raises(Forbidden):
            exchange.issue_for_client(rig.caller(useless), tokens=rig.tokens, now_ms=NOW_MS)


def test_forged_tokens(rig: Rig):
    """Tokens with another pepper, changed claims or another algorithm are refused."""
    id, key = rig.key("embeddings", "usage", "tokens")
    good = rig.exchanged(key)
    head, body, signature = good.split(".")
    header, claims = parts(good)
    stranger = GatewayTokens(pepper=b"q" * 32)
    more = claims | {"permissions": ["embeddings", "usage", "admin"]}
    forged = [
        stranger.issue(
            id, secret_id=key_secret.id_of(key_secret.digest(key, pepper=rig.store.pepper)),
            scopes=["embeddings"], end_user=None, audience=AUDIENCE, now_ms=NOW_MS,
            expires_ms=NOW_MS + 1000,
        ),
        f"{head}.{b64(json.dumps(more).encode())}.{signature}",
        f"{head}.{b64(json.dumps(claims | {'sub': 'root'}).encode())}.{signature}",
        f"{head}.{b64(json.dumps(claims | {'exp': 9_999_999_999}).encode())}.{signature}",
        f"{head}.{body}.", f"{head}.{body}", f"{head}.{body}.{signature}A", f"{good}.", f"{good}=",
        *(
            raw(header | {"alg": alg}, more, sign)
            for alg in ("HS256", "none", "None", "HS512", "RS256", "")
            for sign in (hs256(rig.store.pepper), hs256(b""), hs256(key.encode()), lambda _: b"x")
        ),
    ]  # fmt: skip
    for token in forged:
        assert isinstance(rig.refusal(token), InvalidKey)
    assert rig.caller(good).key_id == id


def test_token_is_read_once_in_a_while_but_its_key_is_asked(rig: Rig):
    """The cache keeps a token's claims only, so the removal of its key takes effect."""
    id, key = rig.key("embeddings", "tokens")
    token = f"Bearer {rig.exchanged(key)}".encode()

    async def until_refused() -> str:
        await rig.authenticator.authenticate(token, None)
        with rig.store.database.begin() as connection:
            connection.execute(
                update(tables.keys).where(tables.keys.c.id == id).values(revoked_ms=1)
            )
        async with asyncio.timeout(WITHIN_S):
            while True:
                try:
                    await rig.authenticator.authenticate(token, None)
                except InvalidKey as error:
                    return error.message
                await asyncio.sleep(0.02)

    assert "revoked" in asyncio.run(until_refused())


# Over HTTP


class Served:
    """A running gateway that accepts tokens of an outside issuer, and keys of its store."""

    def __init__(self, gateway: Gateway, outside: OutsideIssuer, signer: Signer) -> None:
        self.gateway = gateway
        self.outside = outside
        self.signer = signer
        self.store = open_store(gateway.folder / "data")

    def post(self, path: str, credential: str | None = None, **options) -> httpx.Response:
        headers = {"authorization": f"Bearer {credential}"} if credential else {}
        headers |= options.pop("headers", {})
        return httpx.post(f"{self.gateway.url}{path}", headers=headers, timeout=60, **options)

    def embed(self, credential: str, **headers: str) -> httpx.Response:
        return self.post("/v1/embeddings", credential, json={"input": "a"}, headers=headers)

    def exchange(self, credential: str | None, **more) -> httpx.Response:
        body = {"audience": AUDIENCE, "externalUserId": "ada"} | more
        return self.post(EXCHANGE, credential, json=body)

    def outside_token(self, **more) -> str:
        now_s = clock.now_ms() // 1000
        return self.signer.token(self.outside.claims(exp=now_s + 600, iat=now_s, **more))


@pytest.fixture(scope="module")
def served(minilm: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    signer = Signer("one")
    folder = tmp_path_factory.mktemp("served")
    with OutsideIssuer(signer) as outside:
        (folder / "embedway.toml").write_text(
            f'[issuers.corp]\nissuer = "{outside.url}"\naudience = "{AUDIENCE}"\n'
            f'project = "{DEFAULT_PROJECT}"\n'
        )
        gateway = Gateway(folder, log_level="debug")
        rig = Served(gateway.start(), outside, signer)
        yield rig
        rig.store.database.dispose()
        gateway.kill()


def refused(reply: httpx.Response, status: int, code: str | None = None) -> None:
    """Check that the response is an error in the contract's form."""
    assert reply.status_code == status, reply.text
    error = reply.json()["error"]
    assert list(error) == ["message", "type", "param", "code"]
    if code:
        assert error["code"] == code


def test_exchange_over_http(served: Served):
    """MKA1's exchange returns a token that embeds for its end user until the key is revoked."""
    id, key = add_key(served.store, "embeddings", "tokens")
    reply = served.exchange(key, expiresIn=300)
    assert reply.status_code == 200, reply.text
    assert set(reply.json()) == {"token", "expiresAt"}
    assert reply.headers["cache-control"] == "no-store"
    token = reply.json()["token"]
    assert served.embed(token).status_code == 200
    refused(served.embed(token, **{"x-on-behalf-of": "bob"}), 403)
    refused(served.exchange(token), 403)
    refused(served.exchange(None), 401, "invalid_api_key")
    refused(served.exchange(key, permissions=["usage"]), 403)
    refused(served.exchange(key, permissions=["*"]), 403)
    refused(served.exchange(key, audience="elsewhere"), 400)
    refused(served.exchange(key, expiresIn="300"), 400)
    refused(served.exchange(key, expiresIn=10**30), 400)
    refused(served.exchange(key, scope="admin"), 400)
    for body in (b"", b"[]", b"{", b"\xff", b"[" * 60_000, b'{"audience":"embedway"}'):
        refused(served.post(EXCHANGE, key, content=body), 400)
    with served.store.database.begin() as connection:
        connection.execute(update(tables.keys).where(tables.keys.c.id == id).values(revoked_ms=1))
    until(lambda: served.embed(token).status_code == 401, within_s=WITHIN_S)


def test_client_credentials_over_http(served: Served):
    """Cortecs' token route accepts a form, JSON or Basic authentication; the token embeds."""
    id, key = add_key(served.store, "embeddings")
    body = {"grant_type": "client_credentials", "client_id": id, "client_secret": key}
    basic = {"authorization": f"Basic {base64.b64encode(f'{id}:{key}'.encode()).decode()}"}
    grant = {"grant_type": "client_credentials"}
    for options in (
        {"json": body}, {"data": body}, {"data": grant, "headers": basic},
        {"json": grant, "headers": basic},
    ):  # fmt: skip
        reply = served.post(OAUTH, **options)
        assert reply.status_code == 200, reply.text
        assert reply.json()["token_type"] == "bearer"
        assert 3590 <= reply.json()["expires_in"] <= 3600
        assert reply.headers["cache-control"] == "no-store"
        assert served.embed(reply.json()["access_token"]).status_code == 200
    refused(served.post(OAUTH, json=body | {"grant_type": "password"}), 400)
    refused(served.post(OAUTH, json={}), 400)
    refused(served.post(OAUTH, json=body, headers=basic), 400)
    refused(served.post(OAUTH, content=b"a=1&a=2"), 400)
    refused(served.post(OAUTH, content=b"&".join([b"a=1"] * 1000)), 400)


def test_wrong_clients_hear_the_same(served: Served):
    """An error does not reveal whether a key's id exists, and repeats no secret."""
    id, key = add_key(served.store, "embeddings")
    _, other = add_key(served.store, "embeddings")
    body = {"grant_type": "client_credentials"}
    wrong = [
        (id, other),
        (id, key_secret.generate_secret()),
        ("key_none", key),
        ("é", key),
        (id, "x"),
        (id, key[:-1]),
    ]
    replies = [
        served.post(OAUTH, json=body | {"client_id": each, "client_secret": its})
        for each, its in wrong
    ]
    for reply in replies:
        refused(reply, 401, "invalid_api_key")
    assert len({reply.text for reply in replies}) == 1
    assert not any(its in replies[0].text for _, its in wrong[:4])
    for reply in (
        served.post(OAUTH, json=body),
        served.post(OAUTH, json=body, headers={"authorization": "Basic !"}),
    ):
        refused(reply, 401, "invalid_api_key")


def test_outside_token_over_http(served: Served):
    """A token of the configured issuer embeds as its end user and otherwise only lists models."""
    token = served.outside_token()
    assert served.embed(token).status_code == 200
    assert served.embed(token, **{"x-on-behalf-of": "ada"}).status_code == 200
    refused(served.embed(token, **{"x-on-behalf-of": "bob"}), 403)
    listed = httpx.get(
        f"{served.gateway.url}/v1/models", headers={"authorization": f"Bearer {token}"}, timeout=60
    )
    assert listed.status_code == 200
    refused(served.exchange(token), 403)
    rows = served.gateway.cli("usage", "--by", "key", "--json")
    assert rows.returncode == 0, rows.stderr


def test_attacks_over_http(served: Served):
    """Each listed header gets a 401 of one form, whatever server and framework do with it."""
    claims = served.outside.claims(exp=clock.now_ms() // 1000 + 600)
    good = served.outside_token()
    signer = served.signer
    attacks = [
        raw({"alg": "none"}, claims, lambda _: b"x"),
        f"{b64(b'{}')}.{b64(json.dumps(claims).encode())}.",
        raw({"alg": "HS256", "kid": "one"}, claims, hs256(signer.pem())),
        signer.token(claims | {"iss": [served.outside.url]}),
        signer.token(claims | {"aud": "other"}),
        signer.token(claims | {"exp": 1}),
        signer.token(claims, kid="../../../dev/null"),
        signer.token(claims, kid="' OR 1=1 --"),
        signer.token(claims, jku=f"{served.outside.url}/evil"),
        f"{good}x", f"{good}.", good[:-1], "a.b.c", "." * 100, good + "A" * 8192,
    ]  # fmt: skip
    for token in attacks:
        reply = served.embed(token)
        refused(reply, 401, "invalid_api_key")
        assert reply.headers["www-authenticate"].startswith("Bearer")
    assert "/evil" not in served.outside.asked


def test_huge_token_over_http(served: Served):
    """A token of a megabyte is refused, and the gateway keeps serving others."""
    with contextlib.suppress(httpx.TransportError):  # closed while it was still being sent
        assert served.embed("a." * 500_000).status_code in {400, 401, 431}
    assert served.embed(served.outside_token()).status_code == 200


def test_tokens_are_nowhere_in_the_clear(served: Served, new_gateway: Callable[..., Gateway]):
    """Neither the data folder nor the log has tokens or client secrets, accepted or refused."""
    id, key = add_key(served.store, "embeddings", "tokens")
    token = served.exchange(key).json()["token"]
    body = {"grant_type": "client_credentials", "client_id": id, "client_secret": key}
    issued = served.post(OAUTH, json=body).json()["access_token"]
    outside = served.outside_token(jti="mine")
    for each in (token, issued, outside):
        assert served.embed(each).status_code == 200
        assert served.embed(each[:-5] + "AAAAA").status_code == 401
    served.post(OAUTH, json=body | {"client_id": "key_x"})
    found = b"".join(
        each.read_bytes() for each in served.gateway.folder.rglob("*") if each.is_file()
    )
    for each in (token, issued, outside):
        assert each.split(".")[2][:20].encode() not in found
    assert key[20:40].encode() not in found
