"""The tutorial that adds a provider works when you follow it step by step."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "extending.md").read_text()
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CREATE = re.compile(r"Create `(\S+)`:\s*$")
ADD = re.compile(r"Add this (at the end of|above|to) `(\w+)` in\s+`(\S+)`:\s*$")


def follow(text: str, block: str, folder: Path) -> bool:
    """Do what `text` says with `block`; False if it says nothing of a file."""
    if found := CREATE.search(text):
        path = folder / found[1]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block)
        return True
    if found := ADD.search(text):
        where, name, path = found[1], found[2], folder / found[3]
        source = path.read_text()
        [start] = re.findall(rf"^{name}\b.* = [{{(]\n", source, re.MULTILINE)
        before, after = source.split(start)
        if where == "at the end of":
            items, end = re.split(r"^(?=[)}])", after, maxsplit=1, flags=re.MULTILINE)
            added = f"{before}{start}{items}{block}{end}"
        else:
            added = before + (f"{block}\n\n{start}" if where == "above" else start + block) + after
        path.write_text(added)
        return True
    return False


@pytest.mark.skipif(not shutil.which("bash"), reason="bash is not installed")
def test_tutorial(tmp_path: Path) -> None:
    """Each file goes where the page says, and each command ends well and prints what it shows."""
    for name in ("src", "tests", "docs"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    env = os.environ | {"PYTHONPATH": str(tmp_path / "src"), "EMBEDWAY_LOCAL_SERVERS": "false"}
    bin_folder = Path(sys.executable).parent
    printed, compared = "", 0
    parts = FENCE.split(PAGE)
    for text, language, block in zip(parts[0::3], parts[1::3], parts[2::3], strict=False):
        if language == "sh" and not re.search(r"^(make|embedway) ", block, re.MULTILINE):
            command = block.replace(".venv/bin/", f"{bin_folder}/")
            done = subprocess.run(
                ["bash", "-ec", command],
                cwd=tmp_path, env=env, capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stdout + done.stderr
            printed = done.stdout
        elif language == "":
            assert without_numbers(block) in without_numbers(printed)
            compared += 1
        elif language != "sh":
            assert follow(text, block, tmp_path), text
    assert compared == 3


def without_numbers(text: str) -> str:
    """`text` without what differs from run to run: numbers and the width of columns."""
    return re.sub(r"[\d.]+", "", " ".join(text.split()))
