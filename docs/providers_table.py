"""Generates the table and the notes of `providers.md` from the providers' rows.

python docs/providers_table.py
"""

from pathlib import Path

from embedway.providers.adapter import ProviderRow
from embedway.providers.registry import ROWS

PAGE = Path(__file__).with_name("providers.md")
BEGIN, END = "<!-- made by providers_table.py -->\n", "<!-- end -->\n"

HEAD = """| kind | provider | based in | enabled by | shortens | base64 | token ids | `input_type` | `truncate` | a call holds |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""  # noqa: E501


def made() -> str:
    """Return the table and the notes as Markdown."""
    rows = list(ROWS.values())
    table = HEAD + "".join(f"| {' | '.join(_cells(row))} |\n" for row in rows)
    notes = "".join(_note(row) for row in rows)
    folded = f"<details>\n<summary>Notes on each kind</summary>\n\n{notes}\n</details>\n"
    return f"{BEGIN}{table}\n{folded}{END}"


def page(old: str) -> str:
    """Return the page `old` with its generated part replaced."""
    before, _, rest = old.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + made() + after


def _cells(row: ProviderRow) -> tuple[str, ...]:
    fields, limits = row.fields, row.limits
    tokens = f", {limits.max_tokens:,} tokens" if limits.max_tokens else ""
    return (
        f"`{row.name}`",
        row.title,
        row.hq_country,
        _enabled_by(row),
        "yes" if fields.dimensions else "here",
        "yes" if fields.base64 else "",
        "yes" if fields.token_ids else "",
        ", ".join(fields.input_types),
        ", ".join(fields.truncations) or "?",
        f"{limits.max_items:,} items{tokens}",
    )


def _enabled_by(row: ProviderRow) -> str:
    keys = " or ".join(f"`{name}`" for name in row.key_variables)
    needed = [f"`{row.sources(name)[0]}`" for name in row.variables if name not in row.defaults]
    if row.own_server:
        found = f"found on port {row.port}, or declared" if row.port else "declared"
        return found + (f"; key {keys}" if keys else "")
    return " + ".join(filter(None, (keys, *needed)))


def _note(row: ProviderRow) -> str:
    told = [row.notes]
    if row.address:
        told.append(f"Takes its address from {' or '.join(row.address.variables)}, if set.")
    if row.eu_native:
        told.append("Based and regulated in the EU.")
    if row.region:
        told.append(f"Its address is in {row.region}.")
    if row.zero_data_retention:
        told.append("Keeps no data.")
    return f"- **`{row.name}`**: {' '.join(filter(None, [*told, f'Source: {row.source}.']))}\n"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
