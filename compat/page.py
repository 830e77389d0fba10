"""Renders `docs/clients.md` from the results of a run."""

import json
import math
import re
import textwrap
from typing import Any

from compat.cases import CASES
from compat.registry import CLIENTS, HERE, Client
from compat.trial import LACKS, Trial

RESULTS = HERE / "results.json"
TEMPLATE = HERE / "clients.md.template"
PAGE = HERE.parent / "docs/clients.md"
SHOWN = re.compile(r"^ *(?:#|//) docs\n(.*?)^ *(?:#|//) end\n", re.MULTILINE | re.DOTALL)
BASE_URL = "http://127.0.0.1:8080/v1"
PYTHON = {
    "case.base_url": f'"{BASE_URL}"',
    "case.api_key": 'os.environ["EMBEDWAY_API_KEY"]',
    "case.model": '"auto"',
}
JAVASCRIPT = {
    "given.base_url": f'"{BASE_URL}"',
    "given.api_key": "process.env.EMBEDWAY_API_KEY",
    "given.model": '"auto"',
}


def load_results() -> dict[str, Any]:
    """Return what earlier runs found, by client."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def keep(plain: dict[str, str], client: Client, trial: Trial) -> None:
    """Put what a run found in place of what earlier ones did, and write the page.

    Args:
        plain: What the gateway answers in each case without a client.
        client: The client that was tried.
        trial: What came of it.
    """
    found = load_results().get("clients", {})
    found[client.name] = {
        "versions": trial.versions,
        "cosine": math.floor(trial.cosine * 10_000 + 0.5) / 10_000,
        "cases": {each.case: each.sees for each in trial.results},
    }
    clients = {name: found[name] for name in CLIENTS if name in found}
    results = {"plain": plain, "clients": clients}
    RESULTS.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n")
    PAGE.write_text(page(results))


def page(results: dict[str, Any]) -> str:
    """Return the page."""
    parts = {
        "clients": "".join(
            _row(CLIENTS[name], found) for name, found in results["clients"].items()
        ),
        "cases": "".join(
            f"| {case.name} | {case.sends} | {results['plain'][case.name]} |\n" for case in CASES
        ),
        "sections": "\n".join(
            _section(CLIENTS[name], found) for name, found in results["clients"].items()
        ),
    }
    text = TEMPLATE.read_text()
    for name, part in parts.items():
        text = text.replace(f"<!-- {name} -->\n", part)
    return text


def configuration(client: Client) -> str:
    """Return the lines of the driver that configure the client, as a user would write them."""
    language = JAVASCRIPT if client.is_javascript else PYTHON
    lines = "".join(
        textwrap.dedent(each).strip("\n") + "\n" for each in SHOWN.findall(client.file.read_text())
    )
    for name, value in language.items():
        lines = lines.replace(name, value)
    return re.sub(r",\s*(\*\*|\.\.\.)options,?", "", lines)


def _row(client: Client, found: dict[str, Any]) -> str:
    return (
        f"| [{client.title}](#{_anchor(client)}) | {_versions(found)} | {found['cosine']:.4f} |\n"
    )


def _section(client: Client, found: dict[str, Any]) -> str:
    language = "js" if client.is_javascript else "python"
    rows, lacking = "", {}
    for name, sees in found["cases"].items():
        if sees.startswith(LACKS):
            lacking.setdefault(sees.removeprefix(LACKS), []).append(name)
        else:
            rows += f"| {name} | {sees} |\n"
    lacks = "".join(f"- {', '.join(names)}: {reason}\n" for reason, names in lacking.items())
    return (
        f"### {client.title}\n\n```{language}\n{configuration(client)}```\n\n"
        f"| case | what you see with {_versions(found)} |\n| --- | --- |\n{rows}"
        + (f"\nNot applicable:\n\n{lacks}" if lacks else "")
    )


def _versions(found: dict[str, Any]) -> str:
    return ", ".join(f"`{name}` {version}" for name, version in found["versions"].items())


def _anchor(client: Client) -> str:
    """Return what GitHub makes of the title as a heading."""
    return re.sub(r"[^\w-]", "", client.title.lower().replace(" ", "-"))
