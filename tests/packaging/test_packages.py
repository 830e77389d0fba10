"""The packages of Embedway: what is in them, and that they work where nothing else is installed."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from email.message import Message
from email.parser import Parser
from importlib.metadata import distribution
from pathlib import Path

import httpx
import pytest
from conftest import Minilm, clean_environment, free_port
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from embedway.corpora.sinks.registry import KINDS

ROOT = Path(__file__).parent.parent.parent
SOURCE = ROOT / "src/embedway"


def run(*command: object, **options: object) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, **options
    )


def build(project: Path, folder: Path) -> dict[str, bytes]:
    """Build both files as `make dist` does; return them by name."""
    done = run(
        sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, project,
        env=clean_environment(),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return {each.name: each.read_bytes() for each in folder.iterdir()}


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the wheel and the source distribution."""
    folder = tmp_path_factory.mktemp("dist")
    build(ROOT, folder)
    return folder


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    """Return the wheel."""
    [path] = dist.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    """Return what the wheel says about itself."""
    with zipfile.ZipFile(wheel) as archive:
        [name] = [each for each in archive.namelist() if each.endswith("/METADATA")]
        return Parser().parsestr(archive.read(name).decode())


def requirements(texts: list[str], extra: str = "") -> list[Requirement]:
    """Return the requirements that hold on this machine, with an extra or without any."""
    parsed = map(Requirement, texts)
    return [each for each in parsed if not each.marker or each.marker.evaluate({"extra": extra})]


def test_the_same_bytes(dist: Path, tmp_path: Path) -> None:
    """Elsewhere and later, the same source gives the same files; and the sdist is that source."""
    [sdist] = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    [project] = tmp_path.iterdir()
    for each in project.rglob("*.py"):
        os.utime(each, (1, 1))
        each.chmod(0o600)
    again = tmp_path / "again"
    assert build(project, again) == {each.name: each.read_bytes() for each in dist.iterdir()}


def test_contents(wheel: Path) -> None:
    """The wheel has every file of the package, the licence, and nothing else."""
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
    here = {
        f"embedway/{path.relative_to(SOURCE)}"
        for path in SOURCE.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert {each for each in packed if ".dist-info/" not in each} == here
    assert any(each.endswith("/licenses/LICENSE") for each in packed)
    for kind in ("/versions/0001_*.py", "*.lua", "*.tiktoken", "/models/*.toml", "py.typed"):
        assert any(Path(each).match(kind.lstrip("/")) for each in packed), kind


def test_versions() -> None:
    """One tag releases all packages, so they have one version."""
    python = tomllib.loads((ROOT / "sdks/python/pyproject.toml").read_text())
    typescript = json.loads((ROOT / "sdks/typescript/package.json").read_text())
    gateway = tomllib.loads((ROOT / "pyproject.toml").read_text())
    versions = {python["project"]["version"], typescript["version"]}
    assert versions == {gateway["project"]["version"]}


def test_extras_are_documented(metadata: Message) -> None:
    """docs/installation.md has a row for each extra, and `all` is those that a gateway may need."""
    page = (ROOT / "docs/installation.md").read_text()
    assert sorted(re.findall(r"^\| `\[(\w+)\]`", page, re.MULTILINE)) == sorted(
        metadata.get_all("Provides-Extra", [])
    )
    listed = metadata.get_all("Requires-Dist", [])
    sinks = {each.extra for each in KINDS.values()} - {"parquet", "postgres", None}
    everything = {
        each.name
        for each in map(Requirement, listed)
        if not any(f'"{sink}"' in str(each.marker) for sink in sinks)
    }
    assert {each.name for each in requirements(listed, "all")} == everything


@pytest.fixture(scope="module")
def program(wheel: Path, metadata: Message, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel where nothing is but what it requires, without extras.

    The packages that it requires are links to those of this environment.
    """
    folder = tmp_path_factory.mktemp("empty")
    uv = [sys.executable, "-m", "uv"]
    offline = clean_environment() | {"UV_OFFLINE": "1", "UV_NO_CONFIG": "1"}
    made = run(*uv, "venv", "--python", sys.executable, folder / "env", env=offline)
    assert made.returncode == 0, made.stderr
    python = folder / "env/bin/python"
    [packages] = folder.glob("env/lib/python*/site-packages")
    found: dict[str, Requirement] = {}
    waiting = requirements(metadata.get_all("Requires-Dist", []))
    while waiting:
        each = waiting.pop()
        if (name := f"{canonicalize_name(each.name)}{sorted(each.extras)}") in found:
            continue
        found[name] = each
        needed = distribution(each.name)
        for extra in {"", *each.extras}:
            waiting += requirements(needed.requires or [], extra)
        for path in {Path(*each.parts[:2]) for each in needed.files or ()}:
            top = path.parts[0]
            source = Path(str(needed.locate_file(top)))
            if top.endswith(".dist-info"):  # uv follows no links to these
                shutil.copytree(source, packages / top, dirs_exist_ok=True)
            elif top not in {"..", "__pycache__"}:
                # Several packages may have parts of a folder without __init__.py.
                part = path if source.is_dir() and not (source / "__init__.py").exists() else top
                (packages / part).parent.mkdir(exist_ok=True)
                if not (packages / part).exists():
                    (packages / part).symlink_to(needed.locate_file(part))
    installed = run(*uv, "pip", "install", "--python", python, "--no-deps", wheel, env=offline)
    assert installed.returncode == 0, installed.stderr
    checked = run(*uv, "pip", "check", "--python", python, env=offline)
    assert checked.returncode == 0, checked.stderr
    return folder / "env/bin/embedway"


@pytest.fixture(scope="module")
def env(minilm: Minilm, program: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the environment of a machine without a network, with weights that were brought."""
    home = tmp_path_factory.mktemp("home")
    env = clean_environment() | {
        "EMBEDWAY_CACHE_DIR": str(home / "cache"),
        "EMBEDWAY_DATA_DIR": str(home / "data"),
        "EMBEDWAY_LOCAL_SERVERS": "false",
        "EMBEDWAY_PORT": str(free_port()),
        "HOME": str(home),
        "PIP_NO_INDEX": "1",
    }
    env.pop("PYTHONDONTWRITEBYTECODE", None)  # each command would compile the package again
    pulled = run(program, "models", "pull", "--from", minilm.weights.parent, env=env, cwd=home)
    assert pulled.returncode == 0, pulled.stderr
    return env


@pytest.fixture(scope="module")
def key(program: Path, env: dict[str, str]) -> Iterator[str]:
    """Run the gateway; return the key that it printed."""
    command = [str(program), "serve"]
    with subprocess.Popen(
        command, env=env, cwd=env["HOME"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True,
    ) as process:  # fmt: skip
        try:
            assert process.stdout
            printed: list[str] = []
            for line in process.stdout:
                printed.append(line)
                if "curl" in line:
                    break
            shown = re.search(r"sk-gateway-[\w-]+", "".join(printed))
            assert shown, "".join(printed)
            yield shown[0]
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=60)
        assert process.returncode == 0


def test_version(program: Path, metadata: Message, env: dict[str, str]) -> None:
    """The installed program names the version of its package."""
    assert run(program, "--version", env=env).stdout.strip() == metadata["Version"]


def test_serves(key: str, env: dict[str, str]) -> None:
    """The installed gateway answers on the built-in model, whose weights were brought here."""
    answer = httpx.post(
        f"http://127.0.0.1:{env['EMBEDWAY_PORT']}/v1/embeddings",
        json={"input": "The quick brown fox"},
        headers={"authorization": f"Bearer {key}"},
        timeout=60,
        verify=False,
    )
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["data"][0]["embedding"]) == 384


def test_csv_needs_no_extra(key: str, program: Path, env: dict[str, str]) -> None:
    """A report in CSV is written without the packages for Parquet."""
    bill = Path(env["HOME"], "bill.csv")
    done = run(program, "usage", "--output", bill, env=env, cwd=bill.parent)
    assert done.returncode == 0, done.stderr
    assert bill.exists()


@pytest.mark.parametrize(
    ("arguments", "settings", "extra"),
    [
        ("embed --output vectors.parquet one", {}, "parquet"),
        ("serve", {"EMBEDWAY_DATABASE_URL": "postgresql://u@127.0.0.1:1/db"}, "postgres"),
        ("serve", {"EMBEDWAY_REDIS_URL": "redis://127.0.0.1:1"}, "redis"),
        ("serve", {"EMBEDWAY_OTLP_ENDPOINT": "http://127.0.0.1:1"}, "otel"),
    ],
    ids=["parquet", "postgres", "redis", "otel"],
)
def test_missing_extra(
    arguments: str, settings: dict[str, str], extra: str, program: Path, env: dict[str, str],
    tmp_path: Path,
) -> None:  # fmt: skip
    """What needs an extra says which, in one line, and ends with 1 before it does anything else."""
    settings |= {"EMBEDWAY_DATA_DIR": str(tmp_path), "EMBEDWAY_PORT": str(free_port())}
    done = run(program, *arguments.split(), env=env | settings, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.endswith(f"pip install 'embedway[{extra}]'\n")
    assert not (tmp_path / "vectors.parquet").exists()
