"""`embedway usage`: what was used, summed from the ledger, or the ledger's lines themselves."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import orjson
import typer
from rich.progress import Progress

from embedway.cli import exports, options, sums
from embedway.cli.administration import open_service
from embedway.cli.exports import Kind
from embedway.cli.options import as_typed, is_unicode
from embedway.cli.plural import count_are
from embedway.cli.sums import DIMENSIONS, MONEY, WIDTHS, ReportRequest
from embedway.cli.terminal import AsJson, load_store, out, progress, reject
from embedway.ledger import query as report
from embedway.ledger.buckets import epoch_ms, time_zones
from embedway.ledger.query import METADATA, Dimension, UsageFilter, UsageQuery
from embedway.ledger.reports import UsageReports
from embedway.storage.tables import usage as ledger

OF_REFUSALS = ("project", "key", "reason")
"""What refused requests are counted by, beside the time."""
OF_USAGE = tuple(name for name in DIMENSIONS if name != "reason")
CHOICES = ", ".join([*WIDTHS, *OF_USAGE, "metadata.KEY"])
BY = "day,model"
BY_OF_REFUSALS = "day,project,reason"

ISSUER = "issuer:"
"""How the key of requests with a token of an outside issuer begins."""

Names = list[str] | None
Filters = Sequence[tuple[Dimension, Sequence[str]]]
"""What may be in each dimension."""


def usage(
    by: Annotated[
        str | None,
        typer.Option(
            help=f"What to sum by, with commas between: {CHOICES}; {BY} if left out. Refused "
            f"requests by {', '.join([*WIDTHS, *OF_REFUSALS])}; {BY_OF_REFUSALS} if left out."
        ),
    ] = None,
    since: Annotated[
        datetime | None,
        options.time("--since", help="From this time on, such as 2026-11-01 or 2026-11-01T13:30."),
    ] = None,
    until: Annotated[
        datetime | None, options.time("--until", help="Up to this time, without it.")
    ] = None,
    time_zone: Annotated[
        str, typer.Option(help="Whose days and clocks, such as Europe/Berlin.")
    ] = "UTC",
    project: Annotated[
        Names,
        typer.Option(
            metavar="ID|NAME", help="Only of this project. Repeatable, as are all that follow."
        ),
    ] = None,
    key: Annotated[Names, typer.Option(help="Only of the key with this id.")] = None,
    model: Annotated[Names, typer.Option(help="Only of this model.")] = None,
    provider: Annotated[Names, typer.Option(help="Only of this provider.")] = None,
    user: Annotated[
        Names, typer.Option(help="Only of this end user; '' for requests without one.")
    ] = None,
    metadata: Annotated[
        Names, typer.Option(help="Only of requests with this in their metadata, as KEY=VALUE.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Write a file, .csv or .parquet, with exact costs.")
    ] = None,
    lines: Annotated[
        bool, typer.Option("--lines", help="Write the ledger's lines to --output, not sums.")
    ] = False,
    refused: Annotated[
        bool,
        typer.Option("--refused", help="Count requests that were answered with an error instead."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show requests, errors, items, tokens and cost, summed from the ledger.

    Items, tokens and cost are those of answered requests. Columns of zeros are left out. Below the
    table are the requests that were answered with an error, by project and reason.

    Tokens are counted as the model counts them, or as its provider tells; where neither could be
    had they are an estimate. Tokens of a model whose price is not known cost nothing here: declare
    its price in embedway.toml. The upstream cost is what providers may charge, also for calls that
    failed.

        embedway usage --by day,model,key

        embedway usage --by month,project --time-zone Europe/Berlin --output bill.csv

        embedway usage --by key --since 2026-01-01 --until 2026-02-01 --json

        embedway usage --refused --by day,project,key,reason

        embedway usage --lines --since 2026-01-01 --output lines.parquet
    """
    if output is None and lines:
        reject("--lines needs --output: embedway usage --lines --output lines.csv")
    if output and as_json:
        reject(f"--json prints and --output {str(output)!r} writes a file. Leave one of them out.")
    if lines and refused:
        reject("Refused requests have no lines, only counts. Leave out --lines or --refused.")
    if output and (why := exports.refusal(output)):
        reject(f"--output {str(output)!r} is not possible: {why}.")
    given = {"project": project, "key": key, "model": model, "provider": provider, "user": user}
    named = {DIMENSIONS[name]: values for name, values in given.items() if values}
    where = [*named.items(), *_of_metadata(metadata or [])]
    if by is None:
        by = BY_OF_REFUSALS if refused else BY
    asked = _asked(by, since, until, time_zone, where, refused=refused)
    if output is None:
        sums.show(asked, _source(), as_json=as_json)
        return
    count = _write_lines(asked, output) if lines else sums.write(asked, _source(), output)
    out.print(f"{count_are(count, 'line' if lines else 'sum')} in {output}.")


def _source() -> UsageReports:
    return UsageReports(load_store().database)


def _known(where: Filters) -> Filters:
    """The filters with ids in place of the names of projects; each project and key exists."""
    if not {of for of, _ in where} & {"project_id", "key_id"}:
        return where
    acts, actor = open_service()
    known: list[tuple[Dimension, Sequence[str]]] = []
    for of, values in where:
        if of == "project_id":
            known.append((of, [each and acts.find_project(actor, each).id for each in values]))
            continue
        for each in values if of == "key_id" else ():
            # Tokens of an outside issuer have no key of ours, and neither have canaries.
            if each and not each.startswith(ISSUER):
                acts.find_key(actor, each)
        known.append((of, values))
    return known


def _asked(
    by: str,
    since: datetime | None,
    until: datetime | None,
    time_zone: str,
    where: Filters,
    *,
    refused: bool,
) -> ReportRequest:
    if time_zone not in time_zones():
        reject(
            f"There is no time zone {time_zone!r}. Use a name such as --time-zone Europe/Berlin, "
            "or UTC."
        )
    zone = ZoneInfo(time_zone)
    names = _names(by, refused=refused)
    if others := [of for of, _ in where if refused and of not in report.REFUSAL_DIMENSIONS]:
        named = {of: f"--{name}" for name, of in DIMENSIONS.items()}
        typed = ", ".join(dict.fromkeys(named.get(of, "--metadata") for of in others))
        reject(f"Refused requests are counted by project and key. Leave out {typed} or --refused.")
    filters = [(of, *values) for of, values in where if of != "project_id"]
    for each in (*names, *(text for texts in filters for text in texts)):
        if not is_unicode(each):
            reject(f"{each!r} is not UTF-8, and so is not in the ledger.")
    since_ms, until_ms = (
        None if each is None else epoch_ms(each.replace(tzinfo=zone)) for each in (since, until)
    )
    if since and until and since >= until:
        reject(
            f"--since {as_typed(since)!r} is not before --until {as_typed(until)!r}. Swap them, or "
            "leave one out."
        )
    query = UsageQuery(
        group_by=tuple(DIMENSIONS.get(name, name) for name in names if name not in WIDTHS),
        filters=tuple(UsageFilter(of, tuple(values)) for of, values in _known(where)),
        width=next((WIDTHS[name] for name in names if name in WIDTHS), None),
        zone=zone,
    )
    return ReportRequest(
        names=names, query=query, since_ms=since_ms, until_ms=until_ms, refused=refused
    )


def _names(by: str, *, refused: bool) -> tuple[str, ...]:
    found = [name.strip() for name in by.split(",") if name.strip()]
    names = [each if each.startswith(METADATA) else each.replace("-", "_") for each in found]
    known = {*WIDTHS, *(OF_REFUSALS if refused else OF_USAGE)}
    known |= {each for each in names if _is_metadata(each) and not refused}
    if unknown := sorted({*names} - known):
        choices = ", ".join([*WIDTHS, *OF_REFUSALS]) if refused else CHOICES
        reject(
            f"--by {by!r} is not possible: nothing is summed by "
            f"{' or '.join(map(repr, unknown))}. Choose from: {choices}."
        )
    if twice := [each for each in dict.fromkeys(names) if names.count(each) > 1]:
        reject(f"--by {by!r} has {' and '.join(map(repr, twice))} more than once. Type it once.")
    if len(times := [each for each in names if each in WIDTHS]) > 1:
        reject(f"--by {by!r} has {' and '.join(map(repr, times))}. Choose one of them.")
    return tuple(names)


def _is_metadata(name: str) -> bool:
    return name.startswith(METADATA) and name != METADATA


def _of_metadata(pairs: Sequence[str]) -> list[tuple[Dimension, list[str]]]:
    found: dict[Dimension, list[str]] = {}
    for pair in pairs:
        key, is_one, value = pair.partition("=")
        if not is_one or not key:
            reject(f"--metadata {pair!r} is not possible: write KEY=VALUE.")
        found.setdefault(METADATA + key, []).append(value)
    return list(found.items())


def _write_lines(asked: ReportRequest, output: Path) -> int:
    names = [column.name for column in ledger.columns]
    kinds: dict[type, Kind] = {int: "integer", bool: "flag"}
    columns: dict[str, Kind] = {
        **{column.name: kinds.get(column.type.python_type, "text") for column in ledger.columns},
        "at": "time",
        **dict.fromkeys(MONEY, "usd"),
    }
    source = _source()
    found = source.read_records(
        asked.query.filters, since_ms=asked.since_ms, until_ms=asked.until_ms
    )
    extent, count = source.read_extent(), 0
    with (
        exports.writer(output, columns) as write,
        progress(*Progress.get_default_columns()) as bar,
    ):
        start_ms, end_ms = asked.since_ms or extent.start_ms, asked.until_ms or extent.end_ms
        task = bar.add_task(output.name, total=end_ms - start_ms)
        for rows in found:
            count += len(rows)
            batch: dict[str, Sequence[Any]] = dict(zip(names, zip(*rows, strict=True), strict=True))
            batch["metadata"] = [_readable(each) for each in batch["metadata"]]
            batch["at"] = batch["at_ms"]
            batch |= {name: batch[nano] for name, nano in MONEY.items()}
            write(batch)
            bar.update(task, completed=batch["at_ms"][-1] - start_ms)
    return count


def _readable(metadata: str) -> str:
    # As it is stored, every letter beyond ASCII is an escape.
    return orjson.dumps(orjson.loads(metadata)).decode() if "\\u" in metadata else metadata
