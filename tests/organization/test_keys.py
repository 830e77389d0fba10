"""Keys: created, refused, revoked, and never stored in the clear."""

import asyncio
import json
import re
import signal
import sqlite3
import stat
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import httpx
import msgspec
import pytest
from conftest import EMBEDWAY, Gateway, clean_environment, embedway
from hypothesis import given
from hypothesis import strategies as st
from raw_http import Wire, until

from embedway.auth import rights
from embedway.auth.authenticator import Authenticator
from embedway.catalog.deployment import Deployment
from embedway.catalog.model import DeploymentSpec, Model
from embedway.core.errors import Forbidden, InvalidKey
from embedway.core.keys import SCOPES, Caller, Key, KeyContext
from embedway.core.project import Project
from embedway.organization import issuing, key_secret
from embedway.organization.directory import Directory
from embedway.routing.restrictions import may_use
from embedway.storage.store import open_store

REVOKED_WITHIN_S = 10
"""The promise is one second. A busy test machine gets more."""
SECRET = re.compile(r"sk-gateway-[0-9A-Za-z]{38}")


def status_of(gateway: Gateway, key: str) -> int:
    with gateway.client(headers={"authorization": f"Bearer {key}"}) as client:
        return client.post("/v1/embeddings", json={"input": "hello"}).status_code


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_revoked_key_stops_working(gateway: Gateway):
    """A running server refuses a key soon after another process revoked it, and for good."""
    made = gateway.new_key("soon gone")
    assert status_of(gateway, made["key"]) == 200
    assert gateway.cli("keys", "revoke", made["id"]).returncode == 0
    until(lambda: status_of(gateway, made["key"]) == 401, within_s=REVOKED_WITHIN_S)
    assert status_of(gateway, made["key"]) == 401
    assert gateway.cli("keys", "revoke", made["id"]).returncode == 1


def test_key_made_while_running_works_at_once(gateway: Gateway):
    """A key works as soon as the command that created it ends."""
    assert status_of(gateway, gateway.new_key("new")["key"]) == 200


def test_expired_key_is_refused(gateway: Gateway):
    """A key stops working at its expiry."""
    made = gateway.new_key("short", "--expires-days", str(3 / 86_400))
    until(lambda: status_of(gateway, made["key"]) == 401, within_s=REVOKED_WITHIN_S)


RESTRICTED = {
    "OPENAI_API_KEY": "sk-upstream",
    "MISTRAL_API_KEY": "upstream",
    "EMBEDWAY_LOCAL_SERVERS": "false",
}


def create(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `keys create` with OpenAI and Mistral enabled."""
    open_store(folder / "data").database.dispose()
    env = {**RESTRICTED, "EMBEDWAY_DATA_DIR": str(folder / "data"), **environment}
    return embedway("keys", "create", "--name", "x", *arguments, env=env, cwd=folder)


def test_restricted_keys(tmp_path: Path):
    """A key keeps its models and providers, without duplicates, in lists and for callers."""
    models = ["auto", "all-minilm-l6-v2", "openai:text-embedding-3-small", "openai:not-yet-known"]
    wanted = [f"--model={each}" for each in [*models, "auto"]]
    made = create(tmp_path, *wanted, "--provider", "openai", "--provider", "embedway", "--json")
    assert made.returncode == 0, made.stderr
    assert create(tmp_path).returncode == 0
    env = {"EMBEDWAY_DATA_DIR": str(tmp_path / "data")}
    listed = json.loads(embedway("keys", "list", "--json", env=env).stdout)
    assert [each["models"] for each in listed] == [models, None]
    assert [each["providers"] for each in listed] == [["openai", "embedway"], None]
    shown = embedway("keys", "list", env=env).stdout.splitlines()
    assert re.split(" {2,}", shown[1].strip())[-2:] == [", ".join(models), "openai, embedway"]
    assert shown[2].split()[-2:] == ["any", "any"]
    store = open_store(tmp_path / "data")
    authenticator = Authenticator(
        Directory(store.database, availability=store.availability),
        pepper=store.pepper,
        now_ms=lambda: 1,
    )
    bearer = f"Bearer {json.loads(made.stdout)['key']}".encode()
    caller = asyncio.run(authenticator.authenticate(bearer, None))
    (key,) = caller.keys
    assert (key.models, key.providers) == (tuple(models), ("openai", "embedway"))
    store.database.dispose()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "text-embedding-3-smal"], "text-embedding-3-small"),
        (["--model", "auto", "--model", "oto"], "'oto'"),
        (["--model", "azure:text-embedding-3-small"], "there are embedway, openai, mistral"),
        (["--model", ""], "''"),
        (["--provider", "mistrall"], "Enabled: embedway, openai, mistral."),
        (["--provider", "openai", "--provider", "azure"], "'azure'"),
    ],
)
def test_restrictions_to_nothing(tmp_path: Path, arguments: list[str], message: str):
    """A name that no request could use is refused with similar names, and no key is created."""
    done = create(tmp_path, *arguments)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    env = {"EMBEDWAY_DATA_DIR": str(tmp_path / "data")}
    assert json.loads(embedway("keys", "list", "--json", env=env).stdout) == []


def served(id: str, provider: str, *, declared: bool = True) -> Deployment:
    deployment = DeploymentSpec(provider=provider)
    return Deployment(
        Model(id=id, owned_by="x", deployments=[deployment], declared=declared), deployment
    )


@pytest.mark.parametrize(
    ("models", "asked", "served", "allowed"),
    [
        (None, "m", served("m", "a"), True),
        ((), "m", served("m", "a"), False),
        (("m",), "m", served("m", "a"), True),
        (("m",), "b:m", served("m", "b"), True),
        (("m",), "an-alias", served("m", "b"), True),
        (("m",), "n", served("n", "a"), False),
        (("a:m",), "a:m", served("m", "a"), True),
        (("a:m",), "m", served("m", "a"), True),
        (("a:m",), "m", served("m", "b"), False),
        (("a:m",), "a:n", served("n", "a"), False),
        (("an-alias",), "an-alias", served("m", "a"), True),
        (("an-alias",), "m", served("m", "a"), False),
        (("auto", "n"), "auto", served("m", "a"), True),
        (("m",), "a:m", served("m", "a", declared=False), False),
        (("a:m",), "a:m", served("m", "a", declared=False), True),
    ],
)
def test_what_a_restricted_key_may_use(
    models: tuple[str, ...] | None, asked: str, served: Deployment, allowed: bool
):
    """An id allows all its deployments, a deployment only itself, an alias requests by that name.

    A provider's model with an undeclared name is not a deployment of the model with that id.
    """
    key = msgspec.structs.replace(
        key_secret.issue_key("k", pepper=b"p" * 32, now_ms=1)[1], models=models
    )
    caller = Caller(key_id=key.id, project=None, keys=(key,), scopes=frozenset())
    assert may_use(caller, name=asked, deployment=served) is allowed


def test_generated_secrets_are_well_formed_and_differ():
    """Every generated secret has the documented form, and none repeats."""
    made = {key_secret.generate_secret() for _ in range(1_000)}
    assert len(made) == 1_000
    assert all(SECRET.fullmatch(each) and key_secret.is_well_formed(each) for each in made)


@given(st.integers(0, 48), st.sampled_from("0aZ-_é\0\n"))
def test_checksum_catches_a_typo(position: int, character: str):
    """A secret with one wrong character is refused without a database query."""
    made = key_secret.generate_secret()
    typo = made[:position] + character + made[position + 1 :]
    assert key_secret.is_well_formed(typo) is (typo == made)


@given(st.text())
def test_no_text_breaks_the_check(text: str):
    """Arbitrary bytes in place of a key are refused without a crash."""
    assert not key_secret.is_well_formed(text)
    assert not key_secret.is_well_formed(f"sk-gateway-{text}")


@pytest.mark.parametrize(
    "header",
    [
        "", "Bearer", "Basic eDp5", "bearer sk-gateway-", "Bearer " + "x" * 4_000,
        "Bearer sk-gateway-" + "é" * 38, "Bearer sk-gateway-" + "\t" * 37 + "x",
    ],
    ids=range(7),
)  # fmt: skip
def test_malformed_credentials_get_401(gateway: Gateway, header: str):
    """Any malformed Authorization header gets a clear 401 with WWW-Authenticate."""
    with Wire(gateway) as wire:
        wire.send(f"POST /v1/embeddings HTTP/1.1\r\nauthorization: {header}\r\n".encode())
        wire.send(b"host: test\r\ncontent-length: 2\r\n\r\n{}")
        reply = wire.reply()
    assert reply is not None
    assert (reply.status_code, reply.json()["error"]["code"]) == (401, "invalid_api_key")
    assert reply.headers["www-authenticate"].startswith("Bearer")


def test_secrets_are_nowhere_in_the_clear(new_gateway: Callable[..., Gateway]):
    """Neither the data folder nor the logs hold a secret, or enough to reconstruct one."""
    gateway = new_gateway(log_level="debug").start()
    assert gateway.embed(input="hello").status_code == 200
    revoked = gateway.new_key("revoked")
    gateway.cli("keys", "revoke", revoked["id"])
    unknown = key_secret.generate_secret()
    assert status_of(gateway, unknown) == 401
    mistyped = gateway.key[:-1] + ("A" if gateway.key[-1] != "A" else "B")
    assert status_of(gateway, mistyped) == 401
    gateway.signal(signal.SIGTERM)
    gateway.wait()
    for each in (gateway.key, revoked["key"], unknown, mistyped):
        random = each.removeprefix("sk-gateway-")[8:]
        for path, content in files(gateway.folder).items():
            assert random.encode() not in content, path


def test_only_the_owner_reads_the_data(new_gateway: Callable[..., Gateway]):
    """Only the owner can read the data folder and the pepper in it."""
    data = new_gateway().folder / "data"
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    assert stat.S_IMODE((data / "pepper").stat().st_mode) == 0o600
    assert len((data / "pepper").read_bytes()) == 32


def test_a_stolen_database_does_not_work_elsewhere(new_gateway: Callable[..., Gateway]):
    """Without its pepper a copied database is useless: no gateway starts on it."""
    gateway = new_gateway()
    (gateway.folder / "data" / "pepper").unlink()
    assert "pepper" in gateway.cli("serve").stderr
    gateway.env["EMBEDWAY_PEPPER"] = "00" * 32
    assert "pepper" in gateway.cli("serve").stderr


def first_keys(gateways: list[Gateway]) -> list[str]:
    return [key for each in gateways for key in set(SECRET.findall(each.log.read_text()))]


def test_servers_that_start_together_share_a_folder(
    minilm: object, tmp_path: Path, new_gateway: Callable[..., Gateway]
):
    """Servers started together on a fresh data folder all run; one of them shows the first key."""
    data = tmp_path / "fresh"
    gateways = [new_gateway() for _ in range(4)]
    for each in gateways:
        each.env["EMBEDWAY_DATA_DIR"] = str(data)
    with ThreadPoolExecutor() as threads:
        list(threads.map(Gateway.start, gateways))
    until(lambda: all("base URL" in each.log.read_text() for each in gateways))
    (shown,) = first_keys(gateways)
    assert [status_of(each, shown) for each in gateways] == [200] * 4
    with closing(sqlite3.connect(data / "embedway.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("SELECT count(*) FROM keys").fetchone() == (1,)
        assert connection.execute("SELECT count(*) FROM usage").fetchone() == (4,)
    assert [path.name for path in data.iterdir() if path.name.startswith("pepper")] == ["pepper"]


def test_first_key_is_shown_once(new_gateway: Callable[..., Gateway], tmp_path: Path):
    """The first start shows a working key. Later starts create and show none."""
    gateway = new_gateway()
    gateway.env["EMBEDWAY_DATA_DIR"] = str(tmp_path / "fresh")
    for _ in range(2):
        gateway.start()
        until(lambda: "base URL" in gateway.log.read_text())  # printed together with the key
        (shown,) = first_keys([gateway])
        assert status_of(gateway, shown) == 200
        gateway.kill()
    assert gateway.cli("keys", "list", "--json").stdout.count('"id"') == 1


def test_one_port_one_server(new_gateway: Callable[..., Gateway]):
    """Of servers started together on one port, one runs and the others report the conflict."""
    gateway = new_gateway()
    logs = [gateway.folder / f"log-{n}" for n in range(3)]
    processes = []
    for log in logs:
        with log.open("wb") as file:
            processes.append(
                subprocess.Popen(
                    [EMBEDWAY, "serve"], env=clean_environment() | gateway.env,
                    cwd=gateway.folder, stdout=file, stderr=file,
                )
            )  # fmt: skip
    try:
        until(lambda: sum(each.poll() is None for each in processes) == 1)
        until(gateway.ready)
        for process, log in zip(processes, logs, strict=True):
            if process.poll() is not None:
                assert process.returncode == 1
                assert "Cannot listen on" in log.read_text()
                assert "Traceback" not in log.read_text()
        assert gateway.embed(input="hello").status_code == 200
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_many_unknown_keys_do_no_harm(gateway: Gateway):
    """A client that guesses keys is refused each time, while others keep working."""
    with gateway.client() as client:
        for _ in range(300):
            key = key_secret.generate_secret()
            reply = client.post(
                "/v1/embeddings", json={"input": "a"}, headers={"authorization": f"Bearer {key}"}
            )
            assert reply.status_code == 401
    assert gateway.embed(input="hello").status_code == 200
    assert httpx.get(f"{gateway.url}/readyz").status_code == 200


@pytest.mark.parametrize("content", [b"", b"short", b"x" * 65])
def test_damaged_pepper(new_gateway: Callable[..., Gateway], content: bytes):
    """A truncated pepper is never used; a message says what to do."""
    gateway = new_gateway()
    (gateway.folder / "data" / "pepper").write_bytes(content)
    done = gateway.cli("keys", "list")
    assert done.returncode == 1
    assert "is damaged; restore it" in done.stderr
    assert "Traceback" not in done.stderr


PROJECT = Project(id="proj_a", name="a", created_ms=1)


def key_of(id: str, *scopes: str, **more) -> Key:
    kept = {"project_id": "proj_a", "name": id, "digest": b"", "hint": "", "created_ms": 1}
    return Key(id=id, scopes=scopes, **(kept | more))


def caller_of(key: Key, issuer: Key | None = None, project: Project | None = PROJECT) -> Caller:
    held = KeyContext(key=key, issuer=issuer, project=project, has_end_users=False)
    return rights.caller_of_key(held, now_ms=100, cure="")


LISTS = st.none() | st.lists(st.sampled_from(["a", "b", "*", "a:b", ""]), max_size=3).map(tuple)
ENDS = st.none() | st.integers(90, 110)
KEYS = st.builds(
    key_of,
    st.just("child"),
    models=LISTS,
    providers=LISTS,
    expires_ms=ENDS,
    issued_by=st.sampled_from([None, "key_issuer", "key_other"]),
    project_id=st.sampled_from([None, "proj_a", "proj_b"]),
).flatmap(
    lambda key: st.lists(st.sampled_from([*SCOPES, "*"]), unique=True).map(
        lambda scopes: msgspec.structs.replace(key, scopes=tuple(scopes))
    )
)


def within(wanted: tuple | None, allowed: tuple | None) -> bool:
    return allowed is None or (wanted is not None and set(wanted) <= set(allowed))


@given(KEYS, KEYS)
def test_issued_rights_are_a_subset(child: Key, issuer: Key):
    """A key can issue only keys whose rights are all among its own."""
    issuer = msgspec.structs.replace(issuer, id="key_issuer")
    subset = (
        "keys" in issuer.scopes
        and issuer.issued_by is None
        and issuer.project_id is not None
        and (child.project_id, child.issued_by) == (issuer.project_id, issuer.id)
        and set(child.scopes) <= set(issuer.scopes) & set(SCOPES) - {"keys", "admin"}
        and within(child.models, issuer.models)
        and within(child.providers, issuer.providers)
        and (child.expires_ms or 10**9) <= (issuer.expires_ms or 10**9)
    )
    if subset:
        issuing.check_issuable(child, issuer)
    else:
        with pytest.raises(Forbidden, match=r"\.$"):
            issuing.check_issuable(child, issuer)


@given(KEYS, KEYS)
def test_used_rights_are_a_subset(child: Key, issuer: Key):
    """However an issued key was stored, it may do no more than its issuer may now."""
    issuer = msgspec.structs.replace(issuer, id="key_issuer", revoked_ms=None)
    child = msgspec.structs.replace(child, issued_by="key_issuer")
    try:
        caller = caller_of(child, issuer, project=PROJECT if child.project_id else None)
    except InvalidKey:
        return
    assert caller.keys == (child, issuer)
    assert caller.scopes <= set(issuer.scopes) & set(child.scopes) - {"keys", "admin"}
    assert issuer.state(100) == child.state(100) == "active"
    assert issuer.project_id == child.project_id


def test_issued_key_stops_with_its_issuer():
    """A key whose issuer is revoked, expired, missing or of another project is refused."""
    child = key_of("child", "embeddings", issued_by="key_issuer")
    assert caller_of(child, key_of("key_issuer", "embeddings")).scopes == {"embeddings"}
    for issuer in (
        None,
        key_of("key_issuer", "embeddings", revoked_ms=1),
        key_of("key_issuer", "embeddings", expires_ms=100),
        key_of("key_issuer", "embeddings", project_id="proj_b"),
    ):
        with pytest.raises(InvalidKey, match="issued the API key child"):
            caller_of(child, issuer)


def test_admin_is_of_no_project():
    """A project's key is never an admin, and an admin key never embeds, whatever is stored."""
    assert caller_of(key_of("k", "embeddings", "admin")).scopes == {"embeddings"}
    admin = key_of("k", "admin", "embeddings", project_id=None)
    assert caller_of(admin, project=None).scopes == {"admin"}
    for project in (None, msgspec.structs.replace(PROJECT, archived_ms=1)):
        with pytest.raises(InvalidKey, match="project"):
            caller_of(key_of("k", "embeddings"), project=project)


def test_required_scopes():
    """Any one of the scopes suffices; without one, the error names them and the key's own."""
    caller = caller_of(key_of("k", "usage"))
    rights.require_scope(caller, "embeddings", "usage")
    with pytest.raises(
        Forbidden, match=r"the scope embeddings or admin; this credential has usage"
    ):
        rights.require_scope(caller, "embeddings", "admin")
