"""Tokens of an outside issuer: which are accepted, and every known way to forge them."""

import asyncio
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import structlog
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st
from outside_issuer import AUDIENCE, NOW_S, OutsideIssuer, Signer, b64, hs256, raw
from sqlalchemy import update

from embedway.auth import compact, issuer_keys
from embedway.auth.authenticator import Authenticator
from embedway.auth.issuer_keys import Issuer
from embedway.auth.issuers import IssuerRegistry
from embedway.auth.tokens import GatewayTokens
from embedway.config.issuers import private_issuer_hosts, read_issuers
from embedway.config.settings import ConfigError, Settings
from embedway.core.errors import EmbedwayError, Forbidden, InvalidKey, StorageUnavailable
from embedway.core.keys import Caller
from embedway.core.project import DEFAULT_PROJECT
from embedway.http.fetch import fetch_document
from embedway.organization.directory import Directory
from embedway.storage import tables
from embedway.storage.store import Store, open_store

PEPPER = b"p" * 32
RSA, RSA_2 = Signer("one"), Signer("two")
EC = Signer("curve", algorithm="ES256")
ED = Signer("edwards", algorithm="EdDSA")


class Rig:
    """An authenticator with one issuer, over a real store, and the clocks of both."""

    def __init__(self, store: Store, outside: OutsideIssuer, **more) -> None:
        self.outside = outside
        self.time_ms = NOW_S * 1000
        self.time_s = 0.0
        declared = {
            "name": "corp",
            "issuer": outside.url,
            "audiences": (AUDIENCE,),
            "project": DEFAULT_PROJECT,
        }
        issuer = Issuer(**(declared | more))
        self.issuers = IssuerRegistry(
            [issuer],
            fetch=partial(fetch_document, private_hosts=private_issuer_hosts([issuer])),
            now_s=lambda: self.time_s,
        )
        self.authenticator = Authenticator(
            Directory(store.database, availability=store.availability),
            pepper=PEPPER,
            now_ms=lambda: self.time_ms,
            tokens=GatewayTokens(pepper=PEPPER),
            issuers=self.issuers,
        )

    async def get(self, token: str | bytes, on_behalf_of: bytes | None = None) -> Caller:
        data = token.encode() if isinstance(token, str) else token
        return await self.authenticator.authenticate(b"Bearer " + data, on_behalf_of)

    async def refused(self, token: str | bytes, name: object = "") -> None:
        try:
            await self.get(token)
        except InvalidKey:
            return
        pytest.fail(f"accepted: {name!r}")

    def caller(self, token: str | bytes, on_behalf_of: bytes | None = None) -> Caller:
        return asyncio.run(self.get(token, on_behalf_of))

    def refusal(self, token: str | bytes) -> EmbedwayError:
        with pytest.raises(EmbedwayError) as raised:
            self.caller(token)
        return raised.value


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    opened = open_store(tmp_path_factory.mktemp("store"))
    yield opened
    opened.database.dispose()


@pytest.fixture
def outside() -> Iterator[OutsideIssuer]:
    with OutsideIssuer(RSA, RSA_2, EC) as running:
        yield running


@pytest.fixture
def rig(store: Store, outside: OutsideIssuer) -> Rig:
    return Rig(store, outside)


def test_a_good_token(rig: Rig):
    """A valid token acts as its end user in the issuer's project, and may embed."""
    for signer in (RSA, RSA_2, EC):
        caller = rig.caller(signer.token(rig.outside.claims()))
        assert (caller.key_id, caller.on_behalf_of, caller.keys) == ("issuer:corp", "ada", ())
        assert caller.scopes == {"embeddings"}
        assert caller.project
        assert caller.project.id == DEFAULT_PROJECT
    assert rig.outside.asked == ["/.well-known/openid-configuration", "/keys"]


@pytest.mark.parametrize(
    "more",
    [
        {"aud": ["other", AUDIENCE]},
        {"exp": NOW_S - 29},
        {"exp": NOW_S + 1.5},
        {"nbf": NOW_S + 29},
        {"iat": None},
        {"sub": "someone else" + "x" * 138},
        {"unknown": {"deep": [1, None]}},
    ],
)
def test_good_variants(rig: Rig, more: dict):
    """Variants that the standard allows are accepted: several audiences, slightly wrong clocks."""
    rig.caller(RSA.token(rig.outside.claims(**more)))


FAR = 10**400
WRONG_CLAIMS = {
    "aud wrong": {"aud": "other"},
    "aud missing": {"aud": None},
    "aud empty": {"aud": []},
    "aud array of others": {"aud": ["other", "embedway2"]},
    "aud with a number": {"aud": [AUDIENCE, 1]},
    "aud object": {"aud": {AUDIENCE: AUDIENCE}},
    "aud prefix": {"aud": AUDIENCE + "/x"},
    "exp missing": {"exp": None},
    "exp past": {"exp": NOW_S - 31},
    "exp string": {"exp": str(NOW_S + 600)},
    "exp true": {"exp": True},
    "exp negative": {"exp": -1},
    "exp huge": {"exp": 10**30},
    "exp enormous": {"exp": FAR},
    "exp float huge": {"exp": 1e308},
    "exp list": {"exp": [NOW_S + 600]},
    "nbf future": {"nbf": NOW_S + 31},
    "nbf string": {"nbf": "0"},
    "iat future": {"iat": NOW_S + 31},
    "iss array": {"iss": ["http://127.0.0.1"]},
    "iss object": {"iss": {}},
    "iss missing": {"iss": None},
    "iss other": {"iss": "https://evil.example"},
    "iss ours": {"iss": "embedway"},
    "sub missing": {"sub": None},
    "sub star": {"sub": "*"},
    "sub empty": {"sub": ""},
    "sub long": {"sub": "x" * 151},
    "sub NUL": {"sub": "a\0b"},
    "sub surrogate": {"sub": "\ud800"},
    "sub number": {"sub": 1},
    "sub SQL is no harm, a line break is": {"sub": "x'; DROP TABLE keys;--\n"},
}


@pytest.mark.parametrize("name", WRONG_CLAIMS)
def test_wrong_claims(rig: Rig, name: str):
    """A valid signature is not enough: each claim must be present, well typed and within bounds."""
    claims = rig.outside.claims(**WRONG_CLAIMS[name])
    assert isinstance(rig.refusal(RSA.token(claims)), InvalidKey)


def test_issuer_among_others_is_none(rig: Rig):
    """A list that contains the accepted issuer, or a prefix of its name, is not that issuer."""
    url = rig.outside.url
    for wrong in ([url], url + "/", url[:-1], url.upper(), f" {url}"):
        assert isinstance(rig.refusal(RSA.token(rig.outside.claims(iss=wrong))), InvalidKey)
    assert rig.outside.asked == []


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "9" * 5000, "0x7fff"])
def test_times_that_are_no_numbers(rig: Rig, number: str):
    """Numbers that Python reads but JSON does not allow, or that are no time, are refused."""
    claims = json.dumps(rig.outside.claims()).replace(str(NOW_S + 600), number).encode()
    assert isinstance(rig.refusal(RSA.token(claims)), InvalidKey)


def forged(outside: OutsideIssuer) -> Iterator[tuple[str, str]]:
    """Yield each way to sign a token, or leave it unsigned, that must be refused."""
    claims = outside.claims(sub="root")
    good = RSA.token(outside.claims())
    head, body, signature = good.split(".")
    for none in ("none", "None", "NONE", "nOnE", "", " none", "none\0", "hs256", "rs256"):
        for sign in (b"", b"x"):
            yield f"alg {none!r}", raw({"alg": none, "kid": "one"}, claims, lambda _, s=sign: s)
        yield f"alg {none!r} signed", RSA.token(claims, alg=none)
    for odd in (None, 1, ["RS256"], {"RS256": 1}):
        yield f"alg {odd!r}", raw({"alg": odd, "kid": "one"}, claims, RSA.sign)
    published = json.dumps(RSA.jwk).encode()
    document = json.dumps({"keys": [each.jwk for each in outside.signers]}).encode()
    for secret in (RSA.pem(), RSA.pem().strip(), RSA.der(), published, document, b"", b"one"):
        for kid in ("one", None, "HS256"):
            header = {"alg": "HS256", "typ": "JWT", **({"kid": kid} if kid else {})}
            yield f"HS256 with {secret[:12]!r}", raw(header, claims, hs256(secret))
            yield "ours", raw(header, claims | {"iss": "embedway"}, hs256(secret))
    for swap in ("RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA", "HS512", "ES256K"):
        yield f"RS256 called {swap}", RSA.token(claims, alg=swap)
    yield "ES256 of an RSA key", EC.token(claims, kid="one")
    yield "RS256 of a curve", RSA.token(claims, kid="curve")
    yield "kid of another key", RSA.token(claims, kid="two")
    yield "nobody's key", Signer("one").token(claims)
    yield "signature stripped", f"{head}.{body}."
    yield "signature left out", f"{head}.{body}"
    yield "signature of another", f"{RSA.token(claims).rpartition('.')[0]}.{signature}"
    yield (
        "signature of the claims alone",
        raw({"alg": "RS256", "kid": "one"}, claims, lambda s: RSA.sign(s.split(b".")[1])),
    )
    for fake in (
        bytes(64),
        b"\0" * 63 + b"\1",
        b"\xff" * 64,
        b"\x30\x06\x02\x01\0\x02\x01\0",
        b"\0",
    ):
        yield (
            "psychic signature",
            raw({"alg": "ES256", "kid": "curve"}, claims, lambda _, s=fake: s),
        )
    for fake in (b"\0", bytes(256), b"\0" * 255 + b"\1", b"\xff" * 256, b"\1" * 4096):
        yield (
            "RSA's psychic signature",
            raw({"alg": "RS256", "kid": "one"}, claims, lambda _, s=fake: s),
        )


def test_forged_signatures(rig: Rig):
    """Only the private half of a published key, with its algorithm, signs an accepted token."""

    async def each() -> None:
        await rig.get(RSA.token(rig.outside.claims()))
        for name, token in forged(rig.outside):
            await rig.refused(token, name)

    asyncio.run(each())


KIDS = [
    "../../../../dev/null", "/etc/passwd", "one' OR '1'='1", "one\0", "one ", "ONE", "",
    "http://127.0.0.1/keys", "file:///dev/null", "x" * 257, "x" * 5000, "$(id)", "\ud800", "é",
    1, True, ["one"], {"kid": "one"}, 1.5,
]  # fmt: skip


def test_kid_is_only_looked_up(rig: Rig):
    """A token's `kid` is only looked up among the issuer's keys, whatever it contains."""

    async def each() -> None:
        for kid in KIDS:
            await rig.refused(RSA.token(rig.outside.claims(), kid=kid), repr(kid))
        with pytest.raises(InvalidKey):  # two keys could be meant
            await rig.get(RSA.token(rig.outside.claims(), kid=None))
        # The issuer has one key of this kind, so the choice is clear.
        await rig.get(EC.token(rig.outside.claims(), kid=None))

    asyncio.run(each())
    assert set(rig.outside.asked) == {"/.well-known/openid-configuration", "/keys"}
    assert len(rig.outside.asked) <= 4


def test_a_token_never_says_what_it_is_checked_with(rig: Rig):
    """Keys and URLs in a token's header are refused, and nothing is fetched for them."""
    evil = Signer("evil")
    there = f"{rig.outside.url}/evil"
    rig.outside.answers["/evil"] = (200, json.dumps({"keys": [evil.jwk]}).encode())
    for more in (
        {"jwk": evil.jwk}, {"jku": there}, {"x5u": there}, {"x5c": ["MIIB"]}, {"jwk": {}},
        {"crit": ["exp"]}, {"crit": []}, {"b64": False, "crit": ["b64"]}, {"b64": False},
        {"cty": "JWT"}, {"zip": "DEF"}, {"enc": "A256GCM"}, {"typ": "logout+jwt"}, {"typ": 1},
    ):  # fmt: skip
        for signer in (evil, RSA):
            header = {"alg": "RS256", "kid": signer.kid} | more
            token = raw(header, rig.outside.claims(), signer.sign)
            assert isinstance(rig.refusal(token), InvalidKey), more
    assert rig.outside.asked == []


def test_other_forms(rig: Rig):
    """Encrypted, nested and JSON forms, and other spellings of the compact form, are refused."""
    good = RSA.token(rig.outside.claims())
    head, body, signature = good.split(".")
    parts = {"protected": head, "payload": body, "signature": signature}
    last = signature[:-1] + chr(ord(signature[-1]) + 1)  # the same bytes, loosely decoded
    twice = json.dumps(rig.outside.claims())[:-1].encode() + b',"sub":"root"}'
    wrong = [
        "", ".", "..", "...", "." * 8000, "a.b.c", f"{good}.", f".{good}", f"{good}.{signature}",
        f"{good}.{head}.{body}", f"{good}=", f"{good}==", f"{good}\0", f"{good} x",
        f"{good}\n{good}", f"{good},{good}", f"{head}=.{body}=.{signature}",
        f"{head}.{body}.{last}", f"{head} .{body}.{signature}", f"{head}\u00a0.{body}.{signature}",
        good.replace("-", "+").replace("_", "/") + "A", json.dumps(parts),
        json.dumps({"payload": body, "signatures": [parts]}), good + f".{signature}" * 2,
        *map(RSA.token, (good.encode(), twice, b'{"iss":"' + b"[" * 3000, b"[" * 5000, b"[]",
                         b"null", b'"x"', b"\xff\xfe", b"\xef\xbb\xbf{}", b"{}x")),
        raw(b'{"alg":"RS256","kid":"one","alg":"RS256"}', rig.outside.claims(), RSA.sign),
        raw(b"[]", rig.outside.claims(), RSA.sign), raw(b"{}", rig.outside.claims(), RSA.sign),
        *(start + "A" * 1_000_000 for start in ("", good)), "a." * 1_000_000,
        good + "." * 1_000_000,
    ]  # fmt: skip
    for token in wrong:
        data = token.encode("latin-1", "replace")
        assert isinstance(rig.refusal(data), InvalidKey), token[:80]
    assert rig.caller(f"  {good}\t").on_behalf_of == "ada"


@given(st.binary(max_size=300))
def test_no_bytes_break_the_check(data: bytes):
    """Arbitrary bytes in place of a token are refused without a crash."""
    for token in (
        data,
        b".".join([data, data, data]),
        f"{b64(data)}.{b64(data)}.{b64(data)}".encode(),
    ):
        if compact.is_compact_token(token):
            with pytest.raises(InvalidKey):
                compact.parse_token(token)


def test_tokens_that_begin_alike_are_not_taken_for_each_other(rig: Rig):
    """The cache compares whole tokens: one more or different character makes another token."""
    good = RSA.token(rig.outside.claims(sub="ada"))
    other = RSA.token(rig.outside.claims(sub="bob"))

    async def each() -> None:
        for _ in range(2):
            assert (await rig.get(good)).on_behalf_of == "ada"
            assert (await rig.get(other)).on_behalf_of == "bob"
            for wrong in (good[:-1], good + "A", good[:-4] + "AAAA", other[:-6] + good[-6:]):
                with pytest.raises(InvalidKey):
                    await rig.get(wrong)

    asyncio.run(each())


def test_expiry_is_not_remembered_away(rig: Rig):
    """A token that was just accepted is refused as soon as it expires."""
    token = RSA.token(rig.outside.claims(exp=NOW_S + 5))

    async def each() -> None:
        await rig.get(token)
        rig.time_ms = (NOW_S + 5 + 30) * 1000 - 1
        await rig.get(token)
        rig.time_ms += 1
        with pytest.raises(InvalidKey, match="expired"):
            await rig.get(token)

    asyncio.run(each())


def test_end_user_is_the_tokens(rig: Rig):
    """A token cannot act for another end user than its own. Naming its own is allowed."""
    token = RSA.token(rig.outside.claims())
    assert rig.caller(token, b"ada").on_behalf_of == "ada"
    with pytest.raises(Forbidden, match="another end user"):
        rig.caller(token, b"bob")


def test_weak_and_unfit_keys_are_not_used(store: Store):
    """Short RSA keys, shared secrets, encryption keys and points off the curve are ignored."""
    weak = Signer("weak", key=rsa.generate_private_key(65_537, 1024))
    unfit = [Signer(name, key=RSA.key) for name in ("enc", "ops", "other")]
    unfit[0].jwk["use"] = "enc"
    unfit[1].jwk["key_ops"] = ["encrypt"]
    unfit[2].jwk["alg"] = "RS512"
    off_curve = Signer("off", algorithm="ES256")
    off_curve.jwk["y"] = off_curve.jwk["x"]
    other_curve = Signer("p384", algorithm="ES256", key=ec.generate_private_key(ec.SECP384R1()))
    listed = [weak, *unfit, off_curve, other_curve, RSA]
    with OutsideIssuer(*listed) as outside:
        secret = {"kty": "oct", "kid": "secret", "k": b64(b"shared"), "alg": "HS256"}
        odd = [secret, secret | {"alg": "RS256"}, None, 1, [], {}, {"kty": "RSA", "kid": "x"},
               {"kty": "RSA", "n": 1, "e": []}, {"kty": ["RSA"]}, RSA.jwk | {"kid": 1},
               RSA.jwk | {"kid": "k" * 300}, RSA.jwk | {"kid": "bad", "e": "AQ"}]  # fmt: skip
        keys = [*odd, *(each.jwk for each in listed)]
        outside.answers["/keys"] = (200, json.dumps({"keys": keys}).encode())
        rig = Rig(store, outside, algorithms=("RS256", "ES256"))

        async def each() -> None:
            await rig.get(RSA.token(outside.claims()))
            for signer in listed[:-1]:
                await rig.refused(signer.token(outside.claims()), str(signer.kid))
            for algorithm in ("HS256", "RS256"):
                header = {"alg": algorithm, "kid": "secret"}
                with pytest.raises(InvalidKey):
                    await rig.get(raw(header, outside.claims(), hs256(b"shared")))

        asyncio.run(each())


def test_algorithms_are_the_settings(store: Store):
    """A published key is ignored if the settings do not allow its algorithm."""
    with OutsideIssuer(RSA, ED, EC) as outside:
        rig = Rig(store, outside, algorithms=("EdDSA",))
        rig.caller(ED.token(outside.claims()))
        for signer in (RSA, EC):
            assert isinstance(rig.refusal(signer.token(outside.claims())), InvalidKey)


def test_keys_are_rotated(rig: Rig):
    """A new key works at once. A withdrawn key stops working after the next refresh."""
    new = Signer("new", key=RSA.key)

    async def each() -> None:
        await rig.get(RSA.token(rig.outside.claims(jti="1")))
        rig.time_s = issuer_keys.RETRY_AFTER_S
        rig.outside.signers = [new]
        await rig.get(new.token(rig.outside.claims()))
        with pytest.raises(InvalidKey, match="does not have"):
            await rig.get(RSA.token(rig.outside.claims(jti="2")))
        # The refresh is due by age alone: the first caller starts it and does not wait for it.
        rig.outside.signers = [RSA]
        rig.time_s += issuer_keys.REFRESH_S
        await rig.get(new.token(rig.outside.claims(jti="3")))
        while len(rig.outside.asked) < 6 or len(asyncio.all_tasks()) > 1:
            await asyncio.sleep(0.01)
        with pytest.raises(InvalidKey, match="does not have"):
            await rig.get(new.token(rig.outside.claims(jti="4")))

    asyncio.run(each())


def test_unknown_keys_do_not_hammer_the_issuer(rig: Rig):
    """Unknown keys cause few fetches, however many there are, and valid tokens keep working."""

    async def each() -> None:
        await rig.get(RSA.token(rig.outside.claims()))
        for moment in (0.0, 1.0, issuer_keys.RETRY_AFTER_S, issuer_keys.RETRY_AFTER_S + 1):
            rig.time_s = moment
            made_up = [RSA.token(rig.outside.claims(), kid=f"{moment}-{n}") for n in range(20)]
            found = await asyncio.gather(*map(rig.get, made_up), return_exceptions=True)
            assert {type(each) for each in found} == {InvalidKey}
        await rig.get(RSA.token(rig.outside.claims(jti="2")))

    asyncio.run(each())
    assert rig.outside.asked.count("/keys") == 2


def test_many_wait_for_one_fetch(rig: Rig):
    """Tokens that arrive before the first keys share one fetch; beyond a limit they get a 503."""

    async def each() -> list:
        tokens = [
            RSA.token(rig.outside.claims(jti=str(n))) for n in range(issuer_keys.MAX_WAITING + 5)
        ]
        return await asyncio.gather(*map(rig.get, tokens), return_exceptions=True)

    found = asyncio.run(each())
    assert sum(isinstance(each, Caller) for each in found) == issuer_keys.MAX_WAITING
    assert sum(isinstance(each, StorageUnavailable) for each in found) == 5
    assert rig.outside.asked.count("/keys") == 1


def test_an_issuer_that_is_away(rig: Rig):
    """Without keys, tokens get a 503. Fetched keys work for a day while no others can be had."""
    down = {"/keys": (500, b"")}
    rig.outside.answers = down

    async def each() -> None:
        with pytest.raises(StorageUnavailable) as raised:
            await rig.get(RSA.token(rig.outside.claims(jti="1")))
        assert (raised.value.status, "retry-after" in raised.value.headers) == (503, True)
        asked = len(rig.outside.asked)
        with pytest.raises(StorageUnavailable):  # it is not asked again at once
            await rig.get(RSA.token(rig.outside.claims(jti="2")))
        assert len(rig.outside.asked) == asked
        rig.outside.answers = {}
        rig.time_s = issuer_keys.FIRST_RETRY_AFTER_S
        await rig.get(RSA.token(rig.outside.claims(jti="3")))
        rig.outside.answers = down
        rig.time_s = issuer_keys.MAX_AGE_S
        with structlog.testing.capture_logs() as logs:
            await rig.get(RSA.token(rig.outside.claims(jti="4")))
            while len(asyncio.all_tasks()) > 1:
                await asyncio.sleep(0.01)
        assert [each["event"] for each in logs] == ["issuer's keys not fetched"]
        rig.time_s += issuer_keys.FIRST_RETRY_AFTER_S + 1
        with pytest.raises(StorageUnavailable):
            await rig.get(RSA.token(rig.outside.claims(jti="5")))

    asyncio.run(each())


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/keys", (302, b"")),
        ("/keys", (404, b"")),
        ("/keys", (200, b"")),
        ("/keys", (200, b"[]")),
        ("/keys", (200, b'{"keys": {}}')),
        ("/keys", (200, b"[" * 100_000)),
        ("/keys", (200, b'{"keys": []}' + b" " * 300_000)),
        ("/.well-known/openid-configuration", (200, b'{"issuer": "https://evil.example"}')),
        ("/.well-known/openid-configuration", (200, b"[]")),
        ("/.well-known/openid-configuration", (200, b"\xff")),
        ("/.well-known/openid-configuration", (200, b"[" * 100_000)),
        ("/.well-known/openid-configuration", (302, b"")),
    ],
)
def test_documents_that_are_not_believed(rig: Rig, path: str, answer: tuple[int, bytes]):
    """Redirects, other issuers, oversized documents and malformed key sets yield no keys."""
    rig.outside.answers[path] = answer
    assert isinstance(rig.refusal(RSA.token(rig.outside.claims())), StorageUnavailable)


@pytest.mark.parametrize(
    "url",
    ["http://{other}/keys", "file:///etc/passwd", "https://", "", 1, "https://127.0.0.2/keys", "https://169.254.169.254/keys"],
)  # fmt: skip
def test_configuration_cannot_lead_inside(rig: Rig, url: object):
    """A configuration cannot make the gateway fetch without TLS or from a private host."""
    with OutsideIssuer(RSA) as other:
        jwks_uri = (
            url.format(other=other.url.removeprefix("http://")) if isinstance(url, str) else url
        )
        body = json.dumps({"issuer": rig.outside.url, "jwks_uri": jwks_uri}).encode()
        rig.outside.answers["/.well-known/openid-configuration"] = (200, body)
        assert isinstance(rig.refusal(RSA.token(rig.outside.claims())), StorageUnavailable)
        assert other.asked == []


def test_token_of_another_issuer(store: Store, rig: Rig):
    """A key of one issuer cannot sign tokens of another, even if both are accepted."""
    theirs = Signer("one")
    with OutsideIssuer(theirs) as other:
        declared = [
            Issuer(name=name, issuer=each.url, audiences=(AUDIENCE,), project=DEFAULT_PROJECT)
            for name, each in (("a", rig.outside), ("b", other))
        ]
        rig.authenticator._issuers = IssuerRegistry(
            declared, fetch=partial(fetch_document, private_hosts=["127.0.0.1"]), now_s=lambda: 0
        )
        assert rig.caller(theirs.token(other.claims())).key_id == "issuer:b"
        assert rig.caller(RSA.token(rig.outside.claims())).key_id == "issuer:a"
        assert isinstance(rig.refusal(theirs.token(rig.outside.claims())), InvalidKey)
        assert isinstance(rig.refusal(RSA.token(other.claims())), InvalidKey)


@pytest.mark.parametrize(
    ("claim", "scopes"),
    [
        ("embeddings usage", {"embeddings", "usage"}),
        (["usage", 1, "admin", "keys", "*"], {"usage"}),
        ("openid profile", set()),
        ("embeddingsusage *", set()),
        (None, set()),
        (7, set()),
        ({"embeddings": 1}, set()),
    ],
)
def test_scopes_claim(store: Store, outside: OutsideIssuer, claim: object, scopes: set):
    """A token has only the scopes that both it and the settings name, never by a wildcard."""
    rig = Rig(store, outside, scopes=("embeddings", "usage"), scopes_claim="scope")
    assert rig.caller(RSA.token(outside.claims(scope=claim))).scopes == scopes


def test_project_of_a_claim(store: Store, outside: OutsideIssuer):
    """A token may name its project, if an active project has that id."""
    rig = Rig(store, outside, project=None, project_claim="tenant")
    found = rig.caller(RSA.token(outside.claims(tenant=DEFAULT_PROJECT)))
    assert found.project
    assert found.project.id == DEFAULT_PROJECT
    for wrong in (None, 1, "", "proj_none", "x\0", "\ud800", "é", "x" * 65, [DEFAULT_PROJECT]):
        assert isinstance(rig.refusal(RSA.token(outside.claims(tenant=wrong))), Forbidden)


def test_archived_project(tmp_path: Path, outside: OutsideIssuer):
    """Tokens of an archived project are refused, with a message that says what to do."""
    store = open_store(tmp_path)
    with store.database.begin() as connection:
        connection.execute(update(tables.projects).values(archived_ms=1))
    refused = Rig(store, outside).refusal(RSA.token(outside.claims()))
    assert (refused.status, "Name another" in refused.message) == (403, True)
    store.database.dispose()


def test_refusals_tell_nothing_of_the_token(rig: Rig):
    """Neither error messages nor the log contain any part of a refused token."""
    with structlog.testing.capture_logs() as logs:
        for _, token in forged(rig.outside):
            message = rig.refusal(token).message
            assert not any(part and len(part) > 6 and part in message for part in token.split("."))
    assert "root" not in str(logs)


SECTION = {"issuer": "https://login.example.com", "audience": "embedway", "project": "proj_a"}


def configured(**more) -> list[Issuer]:
    section = {name: each for name, each in (SECTION | more).items() if each is not None}
    settings = Settings.model_validate(
        {"issuers": {"corp": section}}, context={"issuers": "embedway.toml"}
    )
    return read_issuers(settings)


def test_issuer_settings():
    """Few settings are required, and the defaults are the safest values."""
    (issuer,) = configured(audience=["a", "b"], jwks_url="http://localhost:1/keys", leeway_s=0)
    assert (issuer.audiences, issuer.algorithms) == (("a", "b"), ("RS256", "ES256"))
    assert (issuer.user_claim, issuer.scopes, issuer.leeway_s) == ("sub", ("embeddings",), 0)
    assert private_issuer_hosts([issuer]) == {"login.example.com", "localhost"}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"issuer": None}, "issuer is missing"),
        ({"audience": None}, "audience is missing"),
        ({"audience": []}, "audience = []"),
        ({"issuer": "http://login.example.com"}, "use https"),
        ({"issuer": "login.example.com"}, "must be an address"),
        ({"issuer": "https://a:b@login.example.com"}, "must be an address"),
        ({"issuer": "https://[::1"}, "must be an address"),
        ({"jwks_url": "ftp://login.example.com"}, "must be an address"),
        ({"algorithms": ["HS256"]}, '"HS256" is not accepted'),
        ({"algorithms": ["RS256", "none"]}, '"none" is not accepted'),
        ({"algorithms": []}, "algorithms = []"),
        ({"project": None}, "set project, or project_claim"),
        ({"project_claim": "tenant"}, "set project, or project_claim"),
        ({"scopes": ["embeddings", "admin"]}, "admin"),
        ({"scopes": ["keys"]}, "keys"),
        ({"leeway_s": 301}, "leeway_s = 301"),
        ({"audiences": "x"}, "Did you mean audience?"),
    ],
)
def test_wrong_issuer_settings(more: dict, message: str):
    """Settings that would accept anybody's tokens are refused at start, naming section and cure."""
    with pytest.raises(ConfigError) as raised:
        configured(**more)
    assert "embedway.toml: [issuers.corp]: " in str(raised.value)
    assert message in str(raised.value)


def test_two_sections_of_one_issuer():
    """Two sections cannot configure the same issuer, since it would be unclear which applies."""
    settings = Settings.model_validate({"issuers": {"a": SECTION, "b": SECTION}})
    with pytest.raises(ConfigError, match="another section has the issuer"):
        read_issuers(settings)
