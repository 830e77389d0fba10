"""Gets and sends the clouds' own credentials, against servers that check them."""

import asyncio
import hashlib
import hmac
import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote

import pytest
from conftest import free_port
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from google.auth import jwt

from embedway.core.provider_error import ProviderError
from embedway.http.call import HttpCall, HttpReply
from embedway.http.client import HttpClient
from embedway.providers.aws import SigV4
from embedway.providers.google import GoogleToken
from embedway.providers.provider_config import ProviderConfig
from embedway.providers.registry import ROWS

ID = "AKIAIOSFODNN7EXAMPLE"
SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
CALL = HttpCall(
    path="/model/amazon.titan-embed-text-v2%3A0/invoke", body=b'{"inputText":"\xc3\xa9"}'
)
REFUSED = ProviderError("credentials")


@dataclass
class Call:
    """One received call."""

    method: str
    target: str
    headers: dict[str, str]
    content: bytes


@dataclass
class Server:
    """Keeps its calls and answers each with `answer` of its number."""

    url: str
    answer: Callable[[int], tuple[int, Any]]
    calls: list[Call] = field(default_factory=list)


@contextmanager
def serving(answer: Callable[[int], tuple[int, Any]] = lambda _: (200, {})) -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            server.calls.append(Call(self.command, self.path, headers, content))
            status, content = server.answer(len(server.calls))
            body = json.dumps(content).encode()
            try:
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            except OSError:  # the client has left
                pass

        def do_GET(self) -> None:
            self.do_POST()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        server = Server(f"http://127.0.0.1:{listening.server_port}", answer)
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            listening.shutdown()
            thread.join()


class Clock:
    """A clock that tests set."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


# Amazon Bedrock.


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """An environment without credentials for botocore."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return monkeypatch


def bedrock(*keys: str) -> ProviderConfig:
    variables = {"region": "eu-central-1"}
    return ProviderConfig(name="bedrock", row=ROWS["bedrock"], keys=keys, variables=variables)


async def sent(signer: SigV4, server: Server) -> HttpReply:
    http = HttpClient(server.url, allow_private=True, max_in_flight=1)
    try:
        headers = await signer.headers(CALL, base_url=http.base_url)
        return await http.send(CALL, headers=headers, max_bytes=1000)
    finally:
        await http.aclose()


def assert_signed(call: Call, *, key: str, secret: str) -> None:
    """Return the signature by the published steps of Signature Version 4, from a call."""
    scheme, *parts = call.headers["authorization"].replace(",", "").split(" ")
    fields = dict(part.split("=", 1) for part in parts)
    found, day, region, service, end = fields["Credential"].split("/")
    assert (scheme, found, region) == ("AWS4-HMAC-SHA256", key, "eu-central-1")
    assert (service, end) == ("bedrock", "aws4_request")
    names = fields["SignedHeaders"].split(";")
    assert {"content-type", "host", "x-amz-date"} <= set(names)
    assert ("x-amz-security-token" in names) == ("x-amz-security-token" in call.headers)
    path, _, query = call.target.partition("?")
    canonical = "\n".join(
        [
            call.method,
            quote(path, safe="/-_.~"),  # once more: every service but S3
            query,
            *(f"{name}:{call.headers[name].strip()}" for name in names),
            "",
            fields["SignedHeaders"],
            hashlib.sha256(call.content).hexdigest(),
        ]
    )
    stamp = call.headers["x-amz-date"]
    assert stamp.startswith(day)
    scope = f"{day}/{region}/{service}/{end}"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    signing = f"AWS4{secret}".encode()
    for part in (day, region, service, end):
        signing = hmac.digest(signing, part.encode(), "sha256")
    to_sign = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{digest}"
    assert fields["Signature"] == hmac.digest(signing, to_sign.encode(), "sha256").hex()


@pytest.mark.parametrize("token", ["", "session/token+=="])
def test_signature_is_of_what_is_on_the_wire(token: str) -> None:
    """The signature matches the path, the headers and the body that are sent."""
    declared = bedrock(":".join(filter(None, (ID, SECRET, token))))
    with serving() as server:
        asyncio.run(sent(SigV4(declared), server))
        (call,) = server.calls
    assert (call.target, call.content) == (CALL.path, CALL.body)
    assert call.headers["content-type"] == "application/json"
    assert call.headers.get("x-amz-security-token", "") == token
    assert_signed(call, key=ID, secret=SECRET)


def test_environment(aws: pytest.MonkeyPatch) -> None:
    """With an access key's ID alone, the rest comes from the environment."""
    aws.setenv("AWS_ACCESS_KEY_ID", ID)
    aws.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    with serving() as server:
        asyncio.run(sent(SigV4(bedrock(ID)), server))
        assert_signed(server.calls[0], key=ID, secret=SECRET)


def test_new_login(aws: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Refused credentials are read again, unless they were read just before."""
    clock = Clock()
    signer = SigV4(bedrock(), now_s=clock)
    path = tmp_path / "credentials"

    def login(secret: str) -> None:
        path.write_text(f"[default]\naws_access_key_id={ID}\naws_secret_access_key={secret}\n")

    with serving() as server:
        login("old")
        asyncio.run(sent(signer, server))
        login("new")
        assert not signer.report_failure(REFUSED, {})
        clock.now_s += 61
        assert not signer.report_failure(ProviderError("rate_limit"), {})
        asyncio.run(sent(signer, server))
        assert signer.report_failure(REFUSED, {})
        asyncio.run(sent(signer, server))
        for call, secret in zip(server.calls, ("old", "old", "new"), strict=True):
            assert_signed(call, key=ID, secret=secret)


def role(*until: datetime) -> Callable[[int], tuple[int, Any]]:
    """A role's credentials by the number of the call, each with its end. The last one repeats."""

    def answer(number: int) -> tuple[int, Any]:
        return 200, {
            "AccessKeyId": ID,
            "SecretAccessKey": f"secret-{number}",
            "Token": f"token-{number}",
            "Expiration": until[min(number, len(until)) - 1].isoformat(),
        }

    return answer


LATER = datetime(2999, 1, 1, tzinfo=UTC)


def test_container_role(aws: pytest.MonkeyPatch) -> None:
    """A role's credentials are fetched once for all calls, and not used after they expire."""

    async def calls(server: Server) -> None:
        signer = SigV4(bedrock())
        await asyncio.gather(*(sent(signer, server) for _ in range(5)))
        await signer.aclose()

    ended = datetime(2001, 1, 1, tzinfo=UTC)
    with serving(role(ended, LATER)) as agent, serving() as server:
        aws.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{agent.url}/role")
        asyncio.run(calls(server))
        assert [(call.method, call.target) for call in agent.calls] == [("GET", "/role")] * 2
        for call in server.calls:
            assert call.headers["x-amz-security-token"] == "token-2"
            assert_signed(call, key=ID, secret="secret-2")


def test_role_before_its_end(aws: pytest.MonkeyPatch) -> None:
    """A role's credentials that expire in minutes are used while the next are fetched."""

    async def until_next() -> list[str]:
        signer = SigV4(bedrock())
        seen: list[str] = []
        while len(set(seen)) < 2:
            headers = await signer.headers(CALL, base_url="http://127.0.0.1")
            seen.append(headers["X-Amz-Security-Token"])
            await asyncio.sleep(0)
        await signer.aclose()
        return seen

    soon = datetime.now(UTC) + timedelta(minutes=12)
    with serving(role(soon, soon, LATER)) as agent:
        aws.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{agent.url}/role")
        seen = asyncio.run(until_next())
        assert seen[0] == seen[1] == "token-2"
        assert seen[-1] == "token-3"
        assert len(agent.calls) == 3


@pytest.mark.parametrize("profile", [None, "gone"])
def test_nothing_found(aws: pytest.MonkeyPatch, profile: str | None) -> None:
    """Without credentials, calls fail with `credentials`."""
    if profile:
        aws.setenv("AWS_PROFILE", profile)
    with pytest.raises(ProviderError) as caught:
        asyncio.run(SigV4(bedrock(ID)).headers(CALL, base_url="http://127.0.0.1"))
    assert (caught.value.kind, caught.value.billed) == ("credentials", "no")


@pytest.mark.parametrize("key", ["ABSKQmVkcm9ja0FQSUtleS1h=", "bedrock-api-key-YmVkcm9jaw=="])
def test_bedrock_key_needs_no_signature(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Bedrock API key is sent as it is, even without the extra and a region."""
    monkeypatch.setitem(sys.modules, "botocore.auth", None)
    signer = SigV4(ProviderConfig(name="bedrock", row=ROWS["bedrock"], keys=[key]))
    headers = asyncio.run(signer.headers(CALL, base_url="http://127.0.0.1"))
    assert headers == {"Authorization": f"Bearer {key}"}
    assert not signer.report_failure(REFUSED, headers)


def test_region_is_needed() -> None:
    """Signing needs a region."""
    with pytest.raises(ValueError, match="AWS_REGION"):
        SigV4(ProviderConfig(name="bedrock", row=ROWS["bedrock"], keys=[ID]))


# Google Vertex AI.


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture
def account(key: rsa.RSAPrivateKey, tmp_path: Path) -> Callable[[str], ProviderConfig]:
    """Makes a provider with a service account that gets tokens at a URL."""
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()

    def declared(token_uri: str) -> ProviderConfig:
        path = tmp_path / "account.json"
        facts = {
            "type": "service_account",
            "project_id": "my-project",
            "private_key_id": "1",
            "private_key": pem,
            "client_email": "embedway@my-project.iam.gserviceaccount.com",
            "client_id": "1",
            "token_uri": token_uri,
        }
        path.write_text(json.dumps(facts))
        return vertex(path)

    return declared


def vertex(path: Path) -> ProviderConfig:
    return ProviderConfig(name="vertex", row=ROWS["vertex"], keys=[str(path)])


def token(*expires_in: int) -> Callable[[int], tuple[int, Any]]:
    """Tokens by the number of the call, each with its seconds. The last one repeats."""

    def answer(number: int) -> tuple[int, Any]:
        seconds = expires_in[min(number, len(expires_in)) - 1]
        said = {"access_token": f"token-{number}", "expires_in": seconds, "token_type": "Bearer"}
        return 200, said

    return answer


async def bearer(signer: GoogleToken) -> str:
    return (await signer.headers(CALL, base_url="http://127.0.0.1"))["authorization"]


@contextmanager
def signing(
    declared: ProviderConfig, now_s: Callable[[], float]
) -> Iterator[tuple[Any, GoogleToken]]:
    """Run a credential, and return it with a function that runs coroutines on its loop."""
    signer = GoogleToken(declared, now_s=now_s)
    with asyncio.Runner() as runner:
        try:
            yield runner.run, signer
        finally:
            runner.run(signer.aclose())


Account = Callable[[str], ProviderConfig]


def test_service_account(account: Account, key: rsa.RSAPrivateKey) -> None:
    """All calls share one token, which is requested with the account's signature."""

    async def calls(signer: GoogleToken) -> list[str]:
        return await asyncio.gather(*(bearer(signer) for _ in range(5)))

    with (
        serving(token(3600)) as server,
        signing(account(f"{server.url}/token?v=1"), Clock()) as (run, signer),
    ):
        assert run(calls(signer)) + run(calls(signer)) == ["Bearer token-1"] * 10
        (call,) = server.calls
    assert (call.method, call.target) == ("POST", "/token?v=1")
    assert call.headers["content-type"] == "application/x-www-form-urlencoded"
    (assertion,) = parse_qs(call.content.decode())["assertion"]
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    claims = jwt.decode(assertion, certs=pem.decode())
    assert claims["iss"] == "embedway@my-project.iam.gserviceaccount.com"
    assert claims["scope"] == "https://www.googleapis.com/auth/cloud-platform"


def test_before_its_end(account: Account) -> None:
    """A token that expires in minutes is used while the next one is fetched."""

    async def until_next(signer: GoogleToken) -> list[str]:
        seen = [await bearer(signer)]
        while seen[-1] == seen[0]:
            seen.append(await bearer(signer))
            await asyncio.sleep(0)
        return seen

    with (
        serving(token(100, 3600)) as server,
        signing(account(server.url), Clock()) as (run, signer),
    ):
        seen = run(until_next(signer))
        assert seen[1] == "Bearer token-1"
        assert set(seen) == {"Bearer token-1", "Bearer token-2"}
        assert len(server.calls) == 2


def test_after_its_end(account: Account) -> None:
    """An expired token is not used."""
    with (
        serving(token(-100, 3600)) as server,
        signing(account(server.url), Clock()) as (run, signer),
    ):
        run(bearer(signer))
        assert run(bearer(signer)) == "Bearer token-2"


def test_refused_token(account: Account) -> None:
    """A refused token is replaced, unless it is new. An older one does not count."""
    clock = Clock()
    with serving(token(3600)) as server, signing(account(server.url), clock) as (run, signer):
        first = {"authorization": run(bearer(signer))}
        assert not signer.report_failure(REFUSED, first)
        clock.now_s += 61
        assert not signer.report_failure(ProviderError("rate_limit"), first)
        assert signer.report_failure(REFUSED, first)
        assert run(bearer(signer)) == "Bearer token-2"
        assert signer.report_failure(REFUSED, first)
        assert run(bearer(signer)) == "Bearer token-2"


def test_account_is_refused(account: Account) -> None:
    """If Google refuses, calls fail with `credentials`, and its message is not repeated."""
    said = {"error": "invalid_grant", "error_description": "Invalid JWT Signature."}
    with (
        serving(lambda _: (400, said)) as server,
        signing(account(server.url), Clock()) as (run, signer),
        pytest.raises(ProviderError) as caught,
    ):
        run(bearer(signer))
    assert (caught.value.kind, caught.value.reason) == ("credentials", "")


def test_no_token_server(account: Account) -> None:
    """If the token server is down, calls fail with `unreachable`."""
    with (
        signing(account(f"http://127.0.0.1:{free_port()}"), Clock()) as (run, signer),
        pytest.raises(ProviderError) as caught,
    ):
        run(bearer(signer))
    assert caught.value.kind == "unreachable"


@pytest.mark.parametrize("content", [None, "{}", "no JSON", '{"type": "service_account"}'])
def test_no_account(tmp_path: Path, content: str | None) -> None:
    """If the file is missing or invalid, calls fail with `credentials`."""
    path = tmp_path / "account.json"
    if content is not None:
        path.write_text(content)
    with (
        signing(vertex(path), Clock()) as (run, signer),
        pytest.raises(ProviderError) as caught,
    ):
        run(bearer(signer))
    assert caught.value.kind == "credentials"


def test_closing_waits_for_no_server(account: Account) -> None:
    """Closing cancels a renewal, and waiting calls fail."""
    asked, over = threading.Event(), threading.Event()

    def never(_: int) -> tuple[int, Any]:
        asked.set()
        over.wait()
        return 200, {}

    async def close(signer: GoogleToken) -> None:
        waiting = asyncio.create_task(bearer(signer))
        await asyncio.to_thread(asked.wait)
        await signer.aclose()
        with pytest.raises(ProviderError):
            await waiting

    with serving(never) as server, signing(account(server.url), Clock()) as (run, signer):
        try:
            run(close(signer))
        finally:
            over.set()


@pytest.mark.parametrize(
    ("module", "build", "extra"),
    [
        ("botocore.auth", lambda: SigV4(bedrock(ID)), r"embedway\[bedrock\]"),
        ("google.auth", lambda: GoogleToken(vertex(Path("x"))), r"embedway\[vertex\]"),
    ],
)
def test_missing_extra(
    monkeypatch: pytest.MonkeyPatch, module: str, build: Callable[[], object], extra: str
) -> None:
    """Without a cloud's package, the message says what to install."""
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=extra):
        build()
