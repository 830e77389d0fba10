"""`embedway usage`: what was used, summed from the ledger."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from embedway.cli.terminal import AsJson, fail, load_store, print_table
from embedway.core.money import as_usd
from embedway.storage.ledger import DIMENSIONS, Dimension, report

FORMATS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]


def usage(
    by: Annotated[
        str, typer.Option(help=f"What to sum by, with commas between: {', '.join(DIMENSIONS)}.")
    ] = "day,model",
    since: Annotated[
        datetime | None, typer.Option(formats=FORMATS, help="From this time on, in UTC.")
    ] = None,
    until: Annotated[
        datetime | None, typer.Option(formats=FORMATS, help="Up to but without this time, in UTC.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show requests, errors, items, tokens and cost, summed from the ledger.

    Items, tokens and cost are those of answered requests; refused ones are counted as errors.
    Tokens are counted as the model counts them, or as its provider tells; where neither could be
    had they are an estimate. Tokens of a model whose price is not known cost nothing here: declare
    its price in embedway.toml.

        embedway usage --by day,model,key

        embedway usage --by key --since 2026-01-01 --until 2026-02-01 --json
    """
    rows = [
        {
            **row.group,
            "requests": row.requests,
            "errors": row.errors,
            "items": row.items,
            "tokens": row.tokens,
            "estimated_tokens": row.estimated_tokens,
            "unpriced_tokens": row.unpriced_tokens,
            "cost_usd": float(as_usd(row.cost_nano_usd)) if as_json else as_usd(row.cost_nano_usd),
        }
        for row in report(
            load_store().database,
            _dimensions(by),
            since_ms=_epoch_ms(since),
            until_ms=_epoch_ms(until),
        )
    ]
    print_table(rows, empty="No usage yet.", as_json=as_json)


def _dimensions(by: str) -> list[Dimension]:
    names = [name.strip().replace("-", "_") for name in by.split(",") if name.strip()]
    if unknown := sorted(set(names) - set(DIMENSIONS)):
        fail(f"Cannot sum by {', '.join(unknown)}. Choose from: {', '.join(DIMENSIONS)}.")
    return sorted((each for each in DIMENSIONS if each in names), key=names.index)


def _epoch_ms(at: datetime | None) -> int | None:
    return None if at is None else round(at.replace(tzinfo=UTC).timestamp() * 1000)
