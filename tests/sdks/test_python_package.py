"""The Python SDK's package: it builds, installs into an empty environment, and stands alone."""

import ast
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from conftest import Gateway, clean_environment

ROOT = Path(__file__).parent.parent.parent
SDK = ROOT / "sdks/python"
OLDEST = shutil.which("python3.10")
if OLDEST and subprocess.run([OLDEST, "-c", ""], capture_output=True, check=False).returncode:
    OLDEST = None  # a placeholder of a version manager
PYTHONS = [sys.executable, *filter(None, [OLDEST])]
EMBED = """
import sys
from embedway_sdk import SDK
with SDK(sys.argv[1], server_url=sys.argv[2]) as sdk:
    res = sdk.llm.embeddings.embed(input=["a", "b"])
    print(len(res.data), len(res.data[1].embedding))
    try:
        res.numpy()
    except ImportError as error:
        print(error)
"""


def run(*command: object) -> str:
    done = subprocess.run(
        list(map(str, command)),
        capture_output=True,
        text=True,
        env=clean_environment(),
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel and the source distribution, as `python -m build` makes them."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, SDK)
    return folder


@pytest.mark.parametrize("python", PYTHONS, ids=lambda path: Path(path).name)
@pytest.mark.parametrize("kind", ["*.whl", "*.tar.gz"])
def test_it_installs_into_an_empty_environment(
    gateway: Gateway, dist: Path, tmp_path: Path, python: str, kind: str
) -> None:
    """Either file installs with an HTTP client alone, and embeds; NumPy is not needed."""
    if python == sys.executable:
        venv.create(tmp_path)
    else:
        run(python, "-m", "venv", "--without-pip", tmp_path)
    pip = [sys.executable, "-m", "pip", "--python", tmp_path / "bin/python"]
    [file] = dist.glob(kind)
    run(*pip, "install", "--quiet", file)
    said = run(tmp_path / "bin/python", "-W", "error", "-c", EMBED, gateway.key, gateway.url)
    assert said.splitlines() == ["2 384", "numpy() needs NumPy: pip install 'embedway-sdk[numpy]'"]
    listed = run(*pip, "list", "--format", "freeze")
    names = {line.partition("==")[0] for line in listed.splitlines()}
    http = {"anyio", "h11", "idna", "truststore", "typing_extensions"}
    http |= {"httpx2", "httpcore2"} | {"httpx", "httpcore", "certifi", "exceptiongroup", "sniffio"}
    assert names <= http | {"embedway-sdk"}


def test_what_is_in_it(dist: Path) -> None:
    """The wheel has the code, the licence and the marker of its types, and nothing else."""
    [wheel] = dist.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "embedway_sdk/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert {name.split("/")[0] for name in names} == {
        "embedway_sdk",
        "embedway_sdk-0.1.0.dist-info",
    }


def imported(folder: Path) -> set[str]:
    """Return the packages that the modules in a folder import."""
    found = set()
    for file in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                found |= {name.name.split(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add((node.module or "").split(".")[0])
    return found


def test_it_and_the_gateway_do_not_know_each_other() -> None:
    """The SDK imports an HTTP client and NumPy; the gateway does not import the SDK."""
    foreign = imported(SDK / "src") - sys.stdlib_module_names
    assert foreign == {"embedway_sdk", "httpx", "httpx2", "numpy", "typing_extensions"}
    assert "embedway_sdk" not in imported(ROOT / "src")
