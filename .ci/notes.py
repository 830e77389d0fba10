"""Writes dist/notes.md: what CHANGELOG.md says of a release, if its tag names the version.

Without a tag, writes what the next release would say.
"""

import re
import sys
import tomllib
from pathlib import Path

tag = sys.argv[1]
version = tomllib.loads(Path("pyproject.toml").read_text())["project"]["version"]
if tag not in {"", f"v{version}"}:
    sys.exit(
        f"The tag {tag!r} does not name the version in pyproject.toml, {version!r}. "
        f"Tag v{version}, or change the version."
    )
heading = version if tag else "Unreleased"
found = re.search(
    rf"^## {re.escape(heading)}\b[^\n]*\n(.+?)(?=^## |\Z)",
    Path("CHANGELOG.md").read_text(),
    re.MULTILINE | re.DOTALL,
)
if found is None or not found[1].strip():
    sys.exit(f"CHANGELOG.md says nothing under '## {heading}'. Write there what is new.")
Path("dist").mkdir(exist_ok=True)
Path("dist/notes.md").write_text(found[1].strip() + "\n")
