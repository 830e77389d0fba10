"""Secrets among the settings can be in files of their own, as service managers provide them."""

from pathlib import Path

import pytest
from conftest import embedway

PEPPER = "5ec7" * 16


@pytest.mark.parametrize("source", ["environment", ".env", "embedway.toml"])
def test_pepper_in_a_file(tmp_path: Path, source: str) -> None:
    """Each source can name a file, whose content is used and never shown."""
    file = tmp_path / "pepper.secret"
    file.write_text(f"{PEPPER}\n")
    variables = {}
    if source == "environment":
        variables = {"EMBEDWAY_PEPPER_FILE": str(file)}
    elif source == ".env":
        (tmp_path / ".env").write_text("EMBEDWAY_PEPPER_FILE=pepper.secret\n")
    else:
        (tmp_path / "embedway.toml").write_text('pepper_file = "pepper.secret"\n')
    shown = embedway("config", "show", env=variables, cwd=tmp_path)
    [line] = [each for each in shown.stdout.splitlines() if each.startswith("pepper ")]
    assert "****" in line
    assert str(file) in line
    assert PEPPER not in shown.stdout


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "there is no file"),
        (b" \n", "is empty"),
        (b"\xff\xfe", "is not UTF-8"),
        (b"a" * 2**17, "too long"),
        (b"hidden", "64 hex digits"),
    ],
    ids=["missing", "empty", "binary", "long", "short"],
)
def test_wrong_files(tmp_path: Path, content: bytes | None, reason: str) -> None:
    """A file that is missing or holds no such secret is refused, without its content."""
    if content is not None:
        (tmp_path / "secret").write_bytes(content)
    done = embedway(
        "config", "show", env={"EMBEDWAY_PEPPER_FILE": str(tmp_path / "secret")}, cwd=tmp_path
    )
    assert done.returncode == 1
    assert reason in done.stderr
    assert "hidden" not in done.stderr
    assert "Traceback" not in done.stderr


def test_both(tmp_path: Path) -> None:
    """A source that has the secret and a file of it is refused; a stronger source simply wins."""
    (tmp_path / "secret").write_text(PEPPER)
    (tmp_path / ".env").write_text("EMBEDWAY_PEPPER_FILE=secret\n")
    both = {"EMBEDWAY_PEPPER_FILE": "secret", "EMBEDWAY_PEPPER": PEPPER}
    refused = embedway("config", "show", env=both, cwd=tmp_path)
    assert refused.returncode == 1
    assert "EMBEDWAY_PEPPER_FILE are both set" in refused.stderr
    shown = embedway("config", "show", env={"EMBEDWAY_PEPPER": PEPPER}, cwd=tmp_path)
    [line] = [each for each in shown.stdout.splitlines() if each.startswith("pepper ")]
    assert " environment " in line


def test_exposed(tmp_path: Path) -> None:
    """A file with a secret that every user may read is reported."""
    (tmp_path / "secret").write_text(PEPPER)
    (tmp_path / "secret").chmod(0o644)
    done = embedway("doctor", env={"EMBEDWAY_PEPPER_FILE": "secret"}, cwd=tmp_path)
    assert str(tmp_path / "secret") in done.stdout + done.stderr
