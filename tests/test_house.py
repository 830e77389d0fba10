"""What holds for the repository: docs say what the code does, and nothing costs too much."""

import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import typer
from conftest import Gateway
from typer.main import get_command
from typer.testing import CliRunner

from embedway import cli
from embedway.config.settings import Settings
from embedway.core.errors import EmbedwayError

ROOT = Path(__file__).parent.parent
HEAVY = (
    *("torch", "transformers", "sentence_transformers", "tensorflow", "pyarrow", "pandas", "scipy"),
    *(
        "boto3",
        "botocore",
        "google.auth",
        "tiktoken",
        "azure",
        "openai",
        "httpx",
        "huggingface_hub",
    ),
)
HOSTS = ("pypi" + ".org", "python" + "hosted", "npm" + "js")


def first_cells(page: str) -> list[str]:
    """The names in the first cells of a page's tables."""
    return re.findall(r"^\| `([^`|]+)`[^|]*\|", (ROOT / "docs" / page).read_text(), re.MULTILINE)


def commands(command: typer.core.TyperGroup, prefix: str = "") -> Iterator[str]:
    """Every command as it is typed."""
    for name, each in command.commands.items():
        if isinstance(each, typer.core.TyperGroup):
            yield from commands(each, f"{prefix}{name} ")
        else:
            yield prefix + name


def leaves(kind: type[EmbedwayError]) -> Iterator[type[EmbedwayError]]:
    """Every error a client can be answered with."""
    for each in kind.__subclasses__():
        yield each
        yield from leaves(each)


def tracked() -> list[Path]:
    """Every file that is, or would be, in the repository."""
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        pytest.skip("not a repository")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    paths = (ROOT / name for name in listed.stdout.split("\0") if name)
    return [path for path in paths if path.is_file()]


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [("embedway.app", HEAVY), ("embedway.cli", (*HEAVY, "openvino", "httptools"))],
)
def test_imports(module: str, unwanted: tuple[str, ...]) -> None:
    """Starting imports no framework of models, no cloud SDK and nothing that one command needs."""
    code = f"import sys, {module}; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(unwanted) & set(ran.stdout.split())


def test_settings_are_documented() -> None:
    """Each setting has its row in docs/configuration.md, and there are no other rows."""
    assert sorted(first_cells("configuration.md")) == sorted(Settings.model_fields)


def test_metrics_are_documented(gateway: Gateway) -> None:
    """Each metric has its row in docs/monitoring.md, and there are no other rows of metrics."""
    assert gateway.embed(input="a").status_code == 200
    exposed = httpx.get(f"{gateway.url}/metrics").text
    names = re.findall(r"^# TYPE (embedway_\S+) (\w+)$", exposed, re.MULTILINE)
    page = (ROOT / "docs/monitoring.md").read_text()
    rows = re.findall(r"^\| `(embedway_\w+)` \| (\w+) \|", page, re.MULTILINE)
    assert sorted(rows) == sorted(names)


def test_commands_are_documented() -> None:
    """Each command has its row in docs/cli.md, and there are no other rows of commands."""
    page = (ROOT / "docs/cli.md").read_text()
    rows = re.findall(r"^\| `embedway ([a-z]+(?: [a-z]+)?)\b[^|]*\|", page, re.MULTILINE)
    assert sorted(set(rows)) == sorted(commands(get_command(cli.commands)))


def test_errors_are_documented() -> None:
    """Each status, type and code has its row in docs/errors.md, and there are no other rows."""
    page = (ROOT / "docs/errors.md").read_text()
    rows = re.findall(r"^\| ([\d, ]+) \| `(\w+)` \| `(\w+)` \|", page, re.MULTILINE)
    documented = {
        (int(status), kind, code) for statuses, kind, code in rows for status in statuses.split(",")
    }
    known = {(each.status, each.type, str(each.code or "null")) for each in leaves(EmbedwayError)}
    assert documented == known


def test_reasons_are_documented() -> None:
    """Each reason of an error is in docs/errors.md, and there are no others."""
    page = (ROOT / "docs/errors.md").read_text().partition("| reason | status |")[2]
    rows = re.findall(r"^\| (`[^|]+) \|", page, re.MULTILINE)
    documented = re.findall(r"`(\w+)`", " ".join(rows))
    kinds = [each for each in leaves(EmbedwayError) if each.__module__.startswith("embedway.")]
    assert sorted(documented) == sorted(each.reason for each in kinds)


def test_providers_are_documented() -> None:
    """What docs/providers.md says of each kind of provider is what the rows say."""
    table = runpy.run_path(str(ROOT / "docs/providers_table.py"))
    page = (ROOT / "docs/providers.md").read_text()
    assert table["page"](page) == page, "run: python docs/providers_table.py"


def test_help() -> None:
    """Every command says what it does."""
    for command in ("", *commands(get_command(cli.commands))):
        shown = CliRunner().invoke(cli.commands, [*command.split(), "--help"])
        assert shown.exit_code == 0
        assert len(shown.output) > 100


def test_no_foreign_addresses() -> None:
    """No file names a package index, which a network may not reach, or a path of one machine."""
    private = [*HOSTS, f"{ROOT}/", f"{Path.home()}/"]
    for path in tracked():
        content = path.read_bytes().decode(errors="replace")
        assert not [each for each in private if each in content], path


def test_nobody_is_told(tmp_path: Path) -> None:
    """Starting reports to nobody: OpenVINO's telemetry, which notes itself at home, stays off."""
    probe = "import sys, embedway.app; print(sys.modules['openvino_telemetry'])"
    done = subprocess.run(
        [sys.executable, "-c", probe],
        env={"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "None"
    assert list(tmp_path.iterdir()) == []


def test_links_lead_somewhere() -> None:
    """Every relative link of a page leads to a file of the repository."""
    pages = [path for path in tracked() if path.suffix == ".md"]
    assert len(pages) > 10
    for page in pages:
        for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name}: {link}"
