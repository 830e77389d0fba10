"""The release: its notes, and workflows that call what everybody can run."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_run_what_is_here(path: Path) -> None:
    """A workflow runs targets of the Makefile and files of the repository, by pinned actions."""
    text = path.read_text()
    [targets] = re.findall(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for line in re.findall(r"\bmake (.+)$", text, re.MULTILINE):
        assert {word for word in line.split() if "=" not in word} <= set(targets.split())
    for script in re.findall(r"run: (\S+/\S+)$", text, re.MULTILINE):
        assert (ROOT / script).stat().st_mode & 0o100, script
    for action in re.findall(r"uses: (\S+)", text):
        here = action.startswith("./") and (ROOT / action).exists()
        assert here or re.search(r"@[0-9a-f]{40}$", action), action


def test_checks_are_those_of_everybody() -> None:
    """Both workflows run `.ci/run`, the release before it publishes anything."""
    check, release = (ROOT / ".github/workflows" / name for name in ("check.yml", "release.yml"))
    assert "- run: .ci/run\n" in check.read_text()
    text = release.read_text().partition("\njobs:\n")[2]
    jobs = dict(re.findall(r"^  (\w+):\n((?:    .*\n|\n)+)", text, re.MULTILINE))
    waits_for = {
        name: set(re.findall(r"\w+", found[1]))
        for name, job in jobs.items()
        if (found := re.search(r"^    needs: (.+)$", job, re.MULTILINE))
    }
    assert "uses: ./.github/workflows/check.yml" in jobs["check"]
    assert waits_for["build"] == {"check"}
    assert all(name == "check" or waits_for[name] for name in jobs)


CHANGELOG = (
    "# Changelog\n\n## Unreleased\n\n## 1.2.3 (2027-01-31)\n\n- New.\n\n## 1.2.2\n\n- Old.\n"
)


@pytest.mark.parametrize(
    ("tag", "said"),
    [
        ("v1.2.3", ""),
        ("v1.2.4", "'v1.2.4' does not name the version in pyproject.toml, '1.2.3'"),
        ("1.2.3", "Tag v1.2.3"),
        ("", "says nothing under '## Unreleased'"),
    ],
)
def test_notes(tag: str, said: str, tmp_path: Path) -> None:
    """A release has the version of its tag and a section of the changelog, which are its notes."""
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "1.2.3"\n')
    done = subprocess.run(
        [sys.executable, ROOT / ".ci/notes.py", tag],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode != 0, said in done.stderr) == (bool(said), True)
    if not said:
        assert (tmp_path / "dist/notes.md").read_text() == "- New.\n"
