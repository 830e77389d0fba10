"""Writes the figures in `docs/reliability.md` from those of the last run.

python -m chaos.page
"""

import json
from pathlib import Path
from typing import Any

from chaos.processes.scenarios import describe

RESULTS = Path(__file__).with_name("results.json")
PAGE = Path(__file__).parents[1] / "docs/reliability.md"
BEGIN, END = "<!-- from chaos/results.json -->\n", "<!-- end -->\n"


def page(text: str, results: dict[str, Any]) -> str:
    """Return the page with these results in place of the figures it has."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{figures(results)}{END}{after}"


def figures(results: dict[str, Any]) -> str:
    """Return a section for each scenario."""
    return "".join(_section(name, found) for name, found in results.items())


def _section(name: str, found: dict[str, Any]) -> str:
    heading = f"\n### {name}\n\n{describe(name)}\n\n"
    if found["skipped"]:
        return f"{heading}Not run: {found['skipped']}.\n"
    rows = "".join(
        f"| {each['promise']} | {each['bound']} | {each['measured']} | "
        f"{'kept' if each['is_kept'] else '**broken**'} |\n"
        for each in found["checks"]
    )
    return (
        f"{heading}| promise | bound | measured | |\n| --- | --- | --- | --- |\n{rows}\n"
        f"{found['seconds']} s on {found['machine']}, {found['date']}, at a load average of "
        f"{found['load']}.\n"
    )


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(), json.loads(RESULTS.read_text())))
