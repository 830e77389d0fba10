"""Writes `docs/clients.md` from the results of the last runs.

python -m compat.page
"""

import json
import math
import re
import textwrap
from typing import Any

from compat.cases import CASES
from compat.registry import CLIENTS, HERE, Client
from compat.server import ALIASES
from compat.trial import LACKS, Trial

RESULTS = HERE / "results.json"
TEMPLATE = HERE / "clients.md.template"
PAGE = HERE.parent / "docs/clients.md"
SHOWN = re.compile(r"^ *(?:#|//) docs\n(.*?)^ *(?:#|//) end\n", re.MULTILINE | re.DOTALL)
BASE_URL = "http://127.0.0.1:8080/v1"
AS_WRITTEN = {
    r",\s*(?:\*\*|\.\.\.)(?:case\.)?options(,?)": r"\1",
    r"(?:case|given)\.base_url": f'"{BASE_URL}"',
    r"(?:case|given)\.api_key": '"sk-gateway-..."',
    r'f"([^"{]*)\{case\.model\}"': r'"\1auto"',
    r"(?:case|given)\.model": '"auto"',
    r"case\.input": "texts",
}
"""What a user writes in place of what a driver gets from the case."""


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
    clients = [(CLIENTS[name], found) for name, found in results["clients"].items()]
    parts = {
        "clients": "".join(_row(client, found) for client, found in clients),
        "aliases": ALIASES,
        "3,000 texts": _seen(clients, "3,000 texts"),
        "limit per hour": _seen(clients, "limit per hour"),
        "cases": "".join(
            f"| {case.name} | {case.sends} | {results['plain'][case.name]} |\n" for case in CASES
        ),
        "sections": "\n".join(_section(client, found) for client, found in clients),
    }
    text = TEMPLATE.read_text()
    for name, part in parts.items():
        text = text.replace(f"<!-- {name} -->\n", part)
    return text


def configuration(client: Client) -> str:
    """Return the lines of the driver that configure the client, as a user would write them."""
    parts = SHOWN.findall(client.file.read_text())
    lines = "\n".join(textwrap.dedent(part).strip("\n") + "\n" for part in parts)
    for pattern, shown in AS_WRITTEN.items():
        lines = re.sub(pattern, shown, lines)
    return lines


def _row(client: Client, found: dict[str, Any]) -> str:
    return (
        f"| [{client.title}](#{_anchor(client)}) | {_versions(found)} | {found['cosine']:.4f} |\n"
    )


def _seen(clients: list[tuple[Client, dict[str, Any]]], case: str) -> str:
    """Return a table of what is seen in a case, and with which clients."""
    titles: dict[str, list[str]] = {}
    for client, found in clients:
        sees = re.sub(r"`\S+` with", "An exception with", found["cases"][case])
        if not sees.startswith(LACKS):
            titles.setdefault(sees, []).append(client.title)
    rows = "".join(f"| {sees} | {'; '.join(names)} |\n" for sees, names in titles.items())
    return f"| what you see | client |\n| --- | --- |\n{rows}"


def _section(client: Client, found: dict[str, Any]) -> str:
    language = "js" if client.is_javascript else "python"
    rows, lacking = "", {}
    for name, sees in found["cases"].items():
        if sees.startswith(LACKS):
            lacking.setdefault(sees.removeprefix(LACKS), []).append(name)
        else:
            rows += f"| {name} | {sees} |\n"
    lacks = "".join(f"- {'; '.join(names)}: {reason}\n" for reason, names in lacking.items())
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


if __name__ == "__main__":
    PAGE.write_text(page(load_results()))
