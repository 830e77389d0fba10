"""Builds the documentation site into `build/site`: `make docs-site`.

The site has the pages that `docs/README.md` lists, a reference of the HTTP API from the gateway's
`/openapi.json`, and one of the command line from its own help. It loads nothing from elsewhere, so
it works in a folder without a server. A page that the index does not list fails the build, and so
does a link or an anchor that leads nowhere, and so does a page that loads something from elsewhere.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.gateway import GatewayProcess, get

from website.api_reference import describe_api

HERE = Path(__file__).parent
ROOT = HERE.parent
BUILD = ROOT / "build"
PAGES = BUILD / "site-pages"
SITE = BUILD / "site"
CONFIG = BUILD / "mkdocs.yml"
PUBLISHED = (
    *("*.md", "docs/**/*.md", "docs/assets/*", "sdks/*/README.md", "deploy/*.md", "chaos/*.md"),
    # The files that deploy/README.md links to.
    *("deploy/Dockerfile", "deploy/Caddyfile", "deploy/*.conf", "deploy/*.yaml"),
    *("deploy/helm/**/*.yaml", "deploy/systemd/*"),
)
SCRIPTS = {
    "mermaid.js": "@mermaid-js/tiny/dist/mermaid.tiny.js",
    "iframe-worker.js": "iframe-worker/shim/index.js",
}
"""The scripts of the site, and where npm puts them."""
API, COMMAND_LINE = "reference/api.md", "reference/command-line.md"
LOADED_FROM_ELSEWHERE = re.compile(
    r"""<(?:script|img|iframe|link)\b[^>]*(?:src|href)=["']?(?:https?:)?//[^>]*>"""
)
LINK = re.compile(r"^\| \[[^]]+\]\(([\w./-]+\.md)\)", re.MULTILINE)


def main() -> int:
    """Write the pages and the navigation, build and check the site; return the exit status."""
    shutil.rmtree(PAGES, ignore_errors=True)
    for page in (page for pattern in PUBLISHED for page in ROOT.glob(pattern)):
        copy(page, PAGES / page.relative_to(ROOT))
    for name, source in SCRIPTS.items():
        copy(HERE / "node_modules" / source, PAGES / "assets" / name)
    (PAGES / "reference").mkdir()
    (PAGES / API).write_text(describe_api(read_openapi()))
    (PAGES / COMMAND_LINE).write_text(describe_command_line())
    nav = list(navigation())
    unlisted = {str(page) for page in PAGES.rglob("*.md")} - set(map(str, listed(nav)))
    if unlisted:
        print(f"Add these pages to the tables of docs/README.md: {', '.join(sorted(unlisted))}")
        return 1
    # Paths in it are relative to its folder. JSON is YAML too.
    inherited = os.path.relpath(HERE / "mkdocs.yml", BUILD)
    config = {"INHERIT": inherited, "docs_dir": PAGES.name, "site_dir": SITE.name, "nav": nav}
    CONFIG.write_text(json.dumps(config))
    zensical = [HERE / ".env/bin/zensical", "build", "--strict", "--clean", "-f", CONFIG]
    built = subprocess.run(zensical, check=False)
    if built.returncode:
        return built.returncode
    for page in SITE.rglob("*.html"):
        if loaded := LOADED_FROM_ELSEWHERE.search(page.read_text()):
            print(f"{page} loads something from another host: {loaded[0]}")
            return 1
    print(f"Open {SITE / 'index.html'}")
    return 0


def listed(nav: Any) -> Iterator[Path]:
    """Yield the pages of the navigation."""
    if isinstance(nav, str):
        yield PAGES / nav
    else:
        for each in nav.values() if isinstance(nav, dict) else nav:
            yield from listed(each)


def copy(source: Path, target: Path) -> None:
    """Copy a file, and make the folders above it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)


def navigation() -> Iterator[dict[str, Any]]:
    """Yield the sections of `docs/README.md`, each with the pages that no earlier one has."""
    seen: set[str] = set()
    yield {"Start": ["README.md", "docs/README.md"]}
    for section in (ROOT / "docs/README.md").read_text().split("\n## ")[1:]:
        title = section.partition("\n")[0]
        pages: list[Any] = []
        for link in LINK.findall(section):
            page = (ROOT / "docs" / link).resolve().relative_to(ROOT)
            if str(page) in seen:
                continue
            seen.add(str(page))
            if page.parent.name == "decisions":
                decisions = sorted(
                    str(each.relative_to(ROOT)) for each in (ROOT / page.parent).glob("0*.md")
                )
                pages.append({"Decisions": [str(page), *decisions]})
            else:
                pages.append(str(page))
        yield {title: pages}
    yield {"Reference": [{"HTTP API": API}, {"Command line": COMMAND_LINE}, "CHANGELOG.md"]}


def read_openapi() -> dict[str, Any]:
    """Return the OpenAPI document of a gateway that runs for the moment."""
    with tempfile.TemporaryDirectory() as folder:
        gateway = GatewayProcess(Path(folder) / "gateway", "")
        with gateway.running():
            gateway.wait_until_ready()
            return get(f"{gateway.url}/openapi.json").json()


def describe_command_line() -> str:
    """Return the page that Typer makes of the commands' help."""
    typer = [sys.executable, "-m", "typer", "embedway.cli", "utils", "docs", "--name", "embedway"]
    made = subprocess.run(typer, check=True, capture_output=True, text=True)
    return made.stdout.replace("# `embedway`", "# Command line", 1)


if __name__ == "__main__":
    sys.exit(main())
