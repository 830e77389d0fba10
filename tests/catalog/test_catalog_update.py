"""A newer catalog is taken only if it is what its digest says and can be right; nothing else is."""

import functools
import http.server
import json
import re
import ssl
import subprocess
import threading
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from conftest import Gateway, embedway
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from embedway.catalog import catalog, files
from embedway.catalog.catalog import DATE
from embedway.catalog.files import CatalogFileError
from embedway.config import catalogs
from embedway.config.catalogs import digest
from embedway.config.settings import Settings
from embedway.core.clock import today
from embedway.testing import Upstream

PACKAGED = files.write_catalog(catalog.read_packaged(), day=DATE)
WAYS_TO_BREAK: dict[str, tuple[Callable[[str], str | bytes], str]] = {
    "empty": (lambda _: "", "required field"),
    "no TOML": (lambda _: "<html>", "no catalog file"),
    "no UTF-8": (lambda text: text.encode() + b'\nname = "\xff"', "utf-8"),
    "half": (lambda text: text[: len(text) // 2], "no catalog file"),
    "huge": (lambda text: text + "#\n" * 600_000, "more than 1048576 bytes"),
    "a long line": (lambda text: text + "# " + "x" * 10_000, "is too long"),
    "a long key": (lambda text: text + "a" + ".a" * 3000 + " = 1", "is too long"),
    "deep": (lambda text: text + "\na = " + "[" * 7000, "nested too deeply"),
    "another format": (lambda text: text.replace("format = 1", "format = 7"), "'7'"),
    "an unknown field": (lambda text: text.replace("owned_by", "owner", 1), "`owner`"),
    "a date to come": (
        lambda text: text.replace(f"date = {DATE}", "date = 2999-01-01", 1),
        "in the future",
    ),
    "no models": (lambda text: text.partition("[[models]]")[0] + "models = []", "no models"),
    "a model twice": (lambda text: text + second("text-embedding-3-small"), "listed twice"),
    "a wrong id": (lambda text: text + second("A model"), "no id of a model"),
    "no number": (lambda text: text + second("m", '"NaN"'), "price_per_mtok_usd is NaN"),
    "infinite": (lambda text: text + second("m", '"-Infinity"'), "price_per_mtok_usd"),
    "a slip of units": (lambda text: text + second("m", '"20"'), "20 USD per million tokens"),
    "wide": (lambda text: text + second("m", dimensions=10**9), "dimensions cannot be"),
    "below zero": (lambda text: text + second("m", dimensions=-1), "dimensions cannot be"),
    "a terminal's escape": (
        lambda text: text + second("m", more='description = "\\u001b[2J"'),
        "description cannot be",
    ),
    "an escape in a key": (lambda text: text + '\n"\\u001b[2J" = 1\n', "unknown field"),
    "ours": (lambda text: text + second("m", provider="embedway"), "cannot add models that run"),
    "weights": (
        lambda text: text + second("m", more='tokenizer = "own"'),
        "cannot add models that run",
    ),
    "nobody": (lambda text: text + '\n[[models]]\nid = "m"\n', "it has no deployments"),
}


def second(
    id: str, price: str = '"0.1"', dimensions: int = 64, provider: str = "openai", more: str = ""
) -> str:
    """A model of a catalog file."""
    return (
        f'\n[[models]]\nid = "{id}"\ndimensions = {dimensions}\nmax_item_tokens = 512\n{more}\n'
        f'deployments = [{{ provider = "{provider}", price_per_mtok_usd = {price}, '
        f"price_date = {DATE} }}]\n"
    )


class Folder:
    """A folder with a data folder in it, and commands that run there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.kept = path / "data" / "catalog.toml"
        self.env = {
            "EMBEDWAY_DATA_DIR": str(path / "data"),
            "EMBEDWAY_LOCAL_SERVERS": "false",
            "EMBEDWAY_PROVIDERS_FROM_ENVIRONMENT": "false",
        }

    def run(self, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        return embedway("catalog", *words, env=self.env | env, cwd=self.path)

    def write(self, content: str | bytes) -> str:
        """Writes `new.toml`, and gives its digest."""
        given = content if isinstance(content, bytes) else content.encode()
        (self.path / "new.toml").write_bytes(given)
        return digest(given)

    def update(self, content: str | bytes, *words: str) -> subprocess.CompletedProcess[str]:
        """Takes this content, which has its digest."""
        return self.run("update", "new.toml", "--sha256", self.write(content), "--yes", *words)

    def shown(self) -> dict[str, Any]:
        done = self.run("show", "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """A folder in which nothing was done yet."""
    return Folder(tmp_path)


def test_an_export_is_the_catalog(folder: Folder) -> None:
    """What is exported is every model that providers serve, with all that is known of it."""
    exported = folder.run("export")
    assert exported.stdout == PACKAGED
    again = files.read_catalog(exported.stdout.encode(), today=DATE)
    assert again.models == files.portable_models(catalog.read_packaged())
    assert again.day == DATE
    assert files.write_catalog(again.models, day=DATE) == PACKAGED
    assert {each.provider for model in again.models for each in model.deployments} >= {"openai"}
    assert all(each["deployments"] for each in tomllib.loads(PACKAGED)["models"])


def test_the_date_of_the_packaged_catalog() -> None:
    """No price of the packaged catalog was read after the day that it says it is of."""
    read = [each.price_date for model in catalog.read_packaged() for each in model.deployments]
    assert max(day for day in read if day) <= DATE


def test_an_update_and_back(folder: Folder) -> None:
    """What changes is shown, the new catalog is in use, and `reset` goes back."""
    assert folder.shown()["catalog"] == "the one of this release"
    new = (
        PACKAGED.replace("pooling = ", "description = ", 1)  # the first one is of bge-m3
        .replace('description = "BAAI\'s open model for over a hundred languages."\n', "", 1)
        .replace('price_per_mtok_usd = "0.02"', 'price_per_mtok_usd = "0.03"', 1)
    )
    first = tomllib.loads(PACKAGED)["models"][0]["id"]
    new = new.replace(f'id = "{first}"', 'id = "renamed"', 1)
    done = folder.update(new, "--json")
    assert done.returncode == 0, done.stderr
    changes = {(each["change"], each["where"]): each for each in json.loads(done.stdout)}
    assert ("removed", first) in changes
    assert ("added", "renamed") in changes
    [pooling] = [each for each in json.loads(done.stdout) if each["vectors"]]
    assert (pooling["where"], pooling["what"]) == ("bge-m3", 'pooling: "cls" -> none')
    [price] = [each["what"] for each in changes.values() if "price_per" in each["what"]
               and each["change"] == "changed"]  # fmt: skip
    assert price == 'price_per_mtok_usd: "0.02" -> "0.03"'
    assert "vectors of bge-m3 may change" in done.stderr
    shown = folder.shown()
    assert (shown["catalog"], shown["date"]) == (str(folder.kept), str(DATE))
    assert shown["sha256"] == digest(new.encode())
    assert folder.kept.stat().st_mode & 0o077 == 0
    assert "This catalog is in use already." in folder.update(new).stderr
    back = folder.run("reset", "--yes")
    assert back.returncode == 0, back.stderr
    assert folder.shown()["catalog"] == "the one of this release"
    assert not folder.kept.exists()


def test_dates_are_shown(folder: Folder) -> None:
    """A date of retirement that is new is a change, and one that changes no vector."""
    done = folder.update(
        PACKAGED.replace('{ provider = "openai",', '{ provider = "openai", retires = 2031-01-01,'),
        "--json",
    )
    changes = json.loads(done.stdout)
    assert {each["what"] for each in changes} == {"retires: none -> 2031-01-01"}
    assert not any(each["vectors"] for each in changes)


@pytest.mark.parametrize("how", WAYS_TO_BREAK)
def test_what_cannot_be_right(how: str) -> None:
    """A broken, huge or hostile file is refused with its reason, and shows no terminal escapes."""
    broken, reason = WAYS_TO_BREAK[how]
    content = broken(PACKAGED)
    with pytest.raises(CatalogFileError, match=re.escape(reason)) as refused:
        files.read_catalog(content if isinstance(content, bytes) else content.encode(), today=DATE)
    assert "\x1b" not in str(refused.value)


@pytest.mark.parametrize("how", ["huge", "a slip of units"])
def test_what_is_refused_changes_nothing(folder: Folder, how: str) -> None:
    """A file that has its digest, but cannot be used, is refused in a line."""
    broken, reason = WAYS_TO_BREAK[how]
    done = folder.update(broken(PACKAGED))
    assert done.returncode == 1
    assert done.stderr.startswith("error: new.toml: ")
    assert reason in done.stderr
    assert "Nothing is changed." in done.stderr
    assert not folder.kept.exists()


def test_the_digest(folder: Folder) -> None:
    """Another digest, none, and what is no digest are refused; upper case is understood."""
    expected = folder.write(PACKAGED)
    for wrong, status, reason in (
        ("0" * 64, 1, f"has the SHA-256 {expected}, not 000"),
        (expected[:-1], 2, "64 hex digits"),
        ("", 2, "64 hex digits"),
    ):
        done = folder.run("update", "new.toml", "--sha256", wrong, "--yes")
        assert (done.returncode, reason in done.stderr) == (status, True), done.stderr
    assert folder.run("update", "new.toml", "--yes").returncode == 2
    assert not folder.kept.exists()
    taken = folder.run("update", "new.toml", "--sha256", expected.upper(), "--yes")
    assert taken.returncode == 0, taken.stderr


def test_nobody_to_ask(folder: Folder) -> None:
    """Without a terminal and without --yes, the changes are shown and nothing is changed."""
    new = folder.write(PACKAGED + second("added"))
    done = folder.run("update", "new.toml", "--sha256", new)
    assert done.returncode == 1
    assert "added" in done.stdout
    assert f"embedway catalog update new.toml --sha256 {new} --yes" in done.stderr
    assert not folder.kept.exists()


def test_no_file(folder: Folder) -> None:
    """A file that is not there, and an address that is not https, are refused."""
    done = folder.run("update", "nowhere.toml", "--sha256", "0" * 64, "--yes")
    assert (done.returncode, "nowhere.toml" in done.stderr) == (1, True)
    done = folder.run("update", "http://127.0.0.1:9/c.toml", "--sha256", "0" * 64, "--yes")
    assert (done.returncode, "neither a file nor an https address" in done.stderr) == (2, True)


def test_older_catalogs(folder: Folder) -> None:
    """What is older than the catalog in use is not taken: neither than ours nor than the last."""
    earlier = PACKAGED.replace(f"date = {DATE}", f"date = {DATE - timedelta(days=1)}", 1)
    done = folder.update(earlier)
    assert (done.returncode, "older than the catalog in use" in done.stderr) == (1, True)
    later = PACKAGED.replace(f"date = {DATE}", f"date = {today()}", 1)
    assert folder.update(later).returncode == 0
    if today() > DATE:
        done = folder.update(PACKAGED)
        assert (done.returncode, "older than the catalog in use" in done.stderr) == (1, True)


def test_no_gateway_could_start(folder: Folder) -> None:
    """A catalog without a model that the settings name is refused, with the reason."""
    (folder.path / "embedway.toml").write_text(
        '[aliases]\nmine = "text-embedding-3-small"\n[providers.openai]\napi_key = "k"\n'
    )
    gone = PACKAGED.replace('id = "text-embedding-3-small"', 'id = "gone"', 1)
    done = folder.update(gone)
    assert done.returncode == 1
    assert "No gateway could start with new.toml" in done.stderr
    assert "alias 'mine'" in done.stderr
    assert not folder.kept.exists()
    assert folder.update(PACKAGED + second("other")).returncode == 0


def rewritten(old: str, new: str) -> Callable[[bytes], bytes]:
    """A kept file in which something is replaced, with the digest of what it then is."""

    def change(kept: bytes) -> bytes:
        first, _, content = kept.partition(b"\n")
        content = content.replace(old.encode(), new.encode(), 1)
        return first[:-64] + digest(content).encode() + b"\n" + content

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda kept: kept[: len(kept) // 2], "has changed since it was installed"),
        (lambda kept: kept.replace(b'"0.02"', b'"0.01"'), "has changed since it was installed"),
        (lambda kept: kept + b"#\n" * 2**20, "has changed since it was installed"),
        (lambda _: b"", "has changed since it was installed"),
        (rewritten("format = 1", "format = 2"), "this release reads format 1"),
        (rewritten(f"date = {DATE}", "date = 2026-01-01"), f"a newer one, of {DATE}"),
    ],
    ids=["cut", "edited", "huge", "empty", "another format", "older than the release"],
)
def test_what_breaks_later(folder: Folder, change: Callable[[bytes], bytes], reason: str) -> None:
    """If the kept file cannot be used, that of the release is, and everybody is told why."""
    settings = Settings.model_validate({"data_dir": folder.path / "data"})
    file = catalogs.keep_catalog(settings, (PACKAGED + second("only-there")).encode())
    assert "only-there" in {model.id for model in catalogs.catalog_in_use(settings).models}
    file.write_bytes(change(file.read_bytes()))
    used = catalogs.catalog_in_use(settings)
    assert (used.file, used.date) == (None, DATE)
    assert used.models == catalog.read_packaged()
    assert str(file) in used.problem
    assert reason in used.problem
    assert "embedway catalog reset" in used.problem
    file.unlink()
    file.mkdir()
    assert "irectory" in catalogs.catalog_in_use(settings).problem


def test_who_is_told_of_a_broken_catalog(folder: Folder) -> None:
    """`catalog show` and `doctor` say that the kept file broke; `reset` removes it."""
    assert folder.update(PACKAGED + second("only-there")).returncode == 0
    folder.kept.write_bytes(folder.kept.read_bytes()[:-5])
    shown = folder.shown()
    assert shown["catalog"] == "the one of this release"
    assert f"{folder.kept} is not used: it has changed since it was installed" in shown["problem"]
    doctor = embedway("doctor", "--json", env=folder.env, cwd=folder.path)
    [check] = [each for each in json.loads(doctor.stdout) if each["check"] == "catalog"]
    assert (check["level"], check["detail"]) == ("warn", shown["problem"])
    assert folder.run("reset", "--yes").returncode == 0
    assert folder.shown()["problem"] is None


def test_a_name_of_a_catalog_that_is_gone(folder: Folder) -> None:
    """Where settings name a model of a catalog that broke, the refusal says that it did."""
    assert folder.update(PACKAGED + second("only-there")).returncode == 0
    (folder.path / "embedway.toml").write_text(
        '[aliases]\nmine = "only-there"\n[providers.openai]\napi_key = "k"\n'
    )
    listed = embedway("models", "list", env=folder.env, cwd=folder.path)
    assert "openai:only-there" in listed.stdout, listed.stderr
    folder.kept.write_bytes(folder.kept.read_bytes()[:-5])
    listed = embedway("models", "list", env=folder.env, cwd=folder.path)
    assert listed.returncode == 1
    assert "no enabled provider serves 'only-there'" in listed.stderr
    assert "it has changed since it was installed" in listed.stderr


def test_a_gateway_uses_it(new_gateway: Callable[..., Gateway], upstream: Upstream) -> None:
    """A gateway serves the models of the catalog that was taken, and starts without it as well."""
    gateway = new_gateway()
    (gateway.folder / "embedway.toml").write_text(
        f'[providers.openai]\nbase_url = "{upstream.url}/openai/v1"\napi_key = "k"\n'
    )
    content = PACKAGED + second("brand-new")
    (gateway.folder / "new.toml").write_text(content)
    taken = gateway.cli(
        "catalog", "update", "new.toml", "--sha256", digest(content.encode()), "--yes"
    )
    assert taken.returncode == 0, taken.stderr
    gateway.start()
    assert gateway.embed(model="brand-new", input="a").status_code == 200
    kept = gateway.folder / "data" / "catalog.toml"
    assert f"catalog    {kept}, of {DATE}, sha256 " in gateway.log.read_text()
    gateway.kill()
    kept.write_text("broken")
    gateway.start()
    assert gateway.embed(model="brand-new", input="a").status_code == 404
    assert gateway.embed(model="auto", input="a").status_code == 200
    log = gateway.log.read_text()
    assert f"The catalog in {kept} is not used: it has changed since it was installed" in log
    gateway.kill()


@contextmanager
def https(folder: Path) -> Iterator[tuple[str, Path]]:
    """A server of a folder's files on this machine, and the certificate that it shows."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = folder / "certificate.pem"
    pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    secret = folder / "key.pem"
    secret.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem, secret)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"https://localhost:{server.server_address[1]}", pem
        server.shutdown()
        thread.join()


def test_an_address(folder: Folder) -> None:
    """A catalog comes from an https address as well; one that is not there, or huge, does not."""
    served = folder.path / "served"
    served.mkdir()
    content = PACKAGED + second("added")
    (served / "catalog.toml").write_text(content)
    (served / "huge.toml").write_text("#\n" * 2**20)
    sha256 = digest(content.encode())
    with https(served) as (url, certificate):
        trusted = {"SSL_CERT_FILE": str(certificate)}
        for file, reason in (("nowhere.toml", "404"), ("huge.toml", "cannot be fetched")):
            done = folder.run("update", f"{url}/{file}", "--sha256", sha256, "--yes", **trusted)
            assert (done.returncode, reason in done.stderr) == (1, True), done.stderr
        done = folder.run("update", f"{url}/catalog.toml", "--sha256", sha256, "--yes")
        assert done.returncode == 1, "nobody vouches for its certificate"
        done = folder.run("update", f"{url}/catalog.toml", "--sha256", sha256, "--yes", **trusted)
    assert done.returncode == 0, done.stderr
    assert folder.shown()["sha256"] == sha256


def test_vectors_are_marked_unless_they_cannot_change() -> None:
    """Every fact but those known to be harmless is marked: also one that is added later."""
    facts = {
        field
        for struct in (catalog.Model, catalog.DeploymentSpec)
        for field in struct.__struct_fields__
    }
    assert facts >= files.HARMLESS
    assert not files.HARMLESS & {
        *("dimensions", "native_dimensions", "trained_dimensions", "pooling", "normalised"),
        *("prompts", "tokenizer", "token_ids", "name", "quantisation"),
    }
    assert date(2026, 1, 1) < DATE


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ('parameters = { model = "x" }', "parameters cannot set model"),
        ("parameters = { dimensions = 8 }", "parameters cannot set dimensions"),
        ("parameters = { a = nan }", "parameters cannot be"),
        ("apply_prompts = true", "it has no prompts"),
    ],
)
def test_what_no_call_can_carry(folder: Folder, said: str, reason: str) -> None:
    """A deployment that could not be asked as it is described is refused, as in settings."""
    text = second("m").replace('provider = "openai"', f'provider = "openai", {said}')
    done = folder.update(PACKAGED + text)
    assert done.returncode == 1
    assert reason in done.stderr
    assert "Nothing is changed." in done.stderr
    assert not folder.kept.exists()


def test_auto_is_no_id(folder: Folder) -> None:
    """No model of a catalog can be called as this gateway calls its usual one."""
    done = folder.update(PACKAGED + second("auto"))
    assert done.returncode == 1
    assert "'auto' is reserved" in done.stderr


@pytest.mark.parametrize(("source", "status"), [("https://[", 2), ("~nobody/catalog.toml", 1)])
def test_odd_sources(folder: Folder, source: str, status: int) -> None:
    """What is neither a file nor an address is said in a line."""
    done = folder.run("update", source, "--sha256", "0" * 64)
    assert (done.returncode, "Traceback" in done.stderr) == (status, False)
    assert source in done.stderr
