"""`embedway usage`: shows or writes usage summed from the ledger, or the usage records."""

from collections.abc import Sequence
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import orjson
import typer
from rich.progress import Progress

from embedway.cli import exports, options, usage_report
from embedway.cli.administration import open_service
from embedway.cli.exports import ColumnType
from embedway.cli.options import format_typed_time, is_unicode
from embedway.cli.setup import open_store
from embedway.cli.terminal import AsJson, count_are, progress, reject, say
from embedway.cli.usage_report import DIMENSIONS, MONEY, WIDTHS, ReportRequest
from embedway.ledger import query as report
from embedway.ledger.buckets import epoch_ms, time_zones
from embedway.ledger.query import METADATA, Dimension, UsageFilter, UsageQuery
from embedway.ledger.reports import UsageReports
from embedway.storage.tables import usage as ledger

REFUSAL_DIMENSIONS = ("project", "key", "reason")
"""What `--by` can count refused requests by, besides the time."""
USAGE_DIMENSIONS = tuple(name for name in DIMENSIONS if name != "reason")
REFUSAL_CHOICES = ", ".join([*WIDTHS, *REFUSAL_DIMENSIONS])
USAGE_CHOICES = ", ".join([*WIDTHS, *USAGE_DIMENSIONS, "metadata.KEY"])
DEFAULT_BY = "day,model"
DEFAULT_REFUSALS_BY = "day,project,reason"

ISSUER_PREFIX = "issuer:"
"""The start of the key id of requests that carry an outside issuer's token."""

Names = list[str] | None


def usage(
    by: Annotated[
        str | None,
        typer.Option(
            help=f"What to sum by, with commas between: {USAGE_CHOICES}. [{DEFAULT_BY}] "
            f"Refused requests by {REFUSAL_CHOICES}. [{DEFAULT_REFUSALS_BY}]"
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
        str, typer.Option(help="The time zone of days and times, such as Europe/Berlin.")
    ] = "UTC",
    project: Annotated[
        Names,
        typer.Option(
            metavar="ID|NAME", help="Only this project. Repeatable, like all filters below."
        ),
    ] = None,
    key: Annotated[Names, typer.Option(help="Only the key with this id.")] = None,
    model: Annotated[Names, typer.Option(help="Only this model.")] = None,
    provider: Annotated[Names, typer.Option(help="Only this provider.")] = None,
    user: Annotated[
        Names, typer.Option(help="Only this end user; '' for requests without one.")
    ] = None,
    metadata: Annotated[
        Names, typer.Option(help="Only requests with this in their metadata, as KEY=VALUE.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Write a file, .csv or .parquet, with exact costs.")
    ] = None,
    lines: Annotated[
        bool, typer.Option("--lines", help="Write usage records to --output instead of sums.")
    ] = False,
    refused: Annotated[
        bool,
        typer.Option("--refused", help="Count requests that were answered with an error instead."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show requests, errors, items, tokens and cost, summed from the ledger.

    Items, tokens and cost are those of answered requests. Columns of zeros are left out. A second
    table counts the requests that were answered with an error, by project and reason.

    Token counts come from the model's own tokenizer or from its provider; if neither is available,
    they are an estimate. A model without a known price costs nothing here: declare its price in
    embedway.toml. The upstream cost is what providers may charge, including for failed calls.

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
        reject("Refused requests have no records, only counts. Leave out --lines or --refused.")
    if output and (why := exports.output_error(output)):
        reject(f"--output {str(output)!r} is not possible: {why}.")
    typed = {"project": project, "key": key, "model": model, "provider": provider, "user": user}
    filters = [
        UsageFilter(DIMENSIONS[name], tuple(values)) for name, values in typed.items() if values
    ]
    filters += _parse_metadata(metadata or [])
    if by is None:
        by = DEFAULT_REFUSALS_BY if refused else DEFAULT_BY
    request = _build_request(by, since, until, time_zone, filters, refused=refused)
    reports = UsageReports(open_store().database)
    if output is None:
        usage_report.print_report(request, reports, as_json=as_json)
        return
    write = _write_records if lines else usage_report.write_report
    count = write(request, reports, output)
    say(f"{count_are(count, 'line' if lines else 'sum')} in {output}.")


def _resolve_filter(filter: UsageFilter) -> UsageFilter:
    """Replace the names of projects by ids, and check that each project and key exists."""
    if filter.dimension not in {"project_id", "key_id"}:
        return filter
    service, actor = open_service()
    if filter.dimension == "project_id":
        ids = (each and service.find_project(actor, each).id for each in filter.values)
        return UsageFilter("project_id", tuple(ids))
    for each in filter.values:
        # An outside issuer's tokens have no key of this gateway, and neither have canaries.
        if each and not each.startswith(ISSUER_PREFIX):
            service.find_key(actor, each)
    return filter


def _build_request(
    by: str,
    since: datetime | None,
    until: datetime | None,
    time_zone: str,
    filters: Sequence[UsageFilter],
    *,
    refused: bool,
) -> ReportRequest:
    if time_zone not in time_zones():
        reject(
            f"There is no time zone {time_zone!r}. Use a name such as --time-zone Europe/Berlin, "
            "or UTC."
        )
    zone = ZoneInfo(time_zone)
    names = _parse_by(by, refused=refused)
    others = {each.dimension for each in filters} - report.REFUSAL_DIMENSIONS
    if refused and others:
        typed = [f"--{name}" for name, of in DIMENSIONS.items() if of in others]
        if any(map(_is_metadata, others)):
            typed.append("--metadata")
        reject(
            f"Refused requests are counted by project and key. Leave out {', '.join(typed)} or "
            "--refused."
        )
    texts = [(each.dimension, *each.values) for each in filters if each.dimension != "project_id"]
    for each in (*names, *chain.from_iterable(texts)):
        if not is_unicode(each):
            reject(f"{each!r} is not UTF-8, so the ledger cannot contain it.")
    since_ms, until_ms = (
        None if each is None else epoch_ms(each.replace(tzinfo=zone)) for each in (since, until)
    )
    if since and until and since >= until:
        reject(
            f"--since {format_typed_time(since)!r} is not before --until "
            f"{format_typed_time(until)!r}. Swap them, or leave one out."
        )
    query = UsageQuery(
        group_by=tuple(DIMENSIONS.get(name, name) for name in names if name not in WIDTHS),
        filters=tuple(map(_resolve_filter, filters)),
        width=next((WIDTHS[name] for name in names if name in WIDTHS), None),
        zone=zone,
    )
    return ReportRequest(
        names=names, query=query, since_ms=since_ms, until_ms=until_ms, refused=refused
    )


def _parse_by(by: str, *, refused: bool) -> tuple[str, ...]:
    typed = [name.strip() for name in by.split(",") if name.strip()]
    names = [each if each.startswith(METADATA) else each.replace("-", "_") for each in typed]
    possible = {*WIDTHS, *(REFUSAL_DIMENSIONS if refused else USAGE_DIMENSIONS)}
    possible |= {each for each in names if _is_metadata(each) and not refused}
    if unknown := sorted({*names} - possible):
        reject(
            f"--by {by!r} is not possible: nothing is summed by "
            f"{' or '.join(map(repr, unknown))}. Choose from: "
            f"{REFUSAL_CHOICES if refused else USAGE_CHOICES}."
        )
    if twice := [each for each in dict.fromkeys(names) if names.count(each) > 1]:
        reject(f"--by {by!r} has {' and '.join(map(repr, twice))} more than once. Type it once.")
    if len(times := [each for each in names if each in WIDTHS]) > 1:
        reject(f"--by {by!r} has {' and '.join(map(repr, times))}. Choose one of them.")
    return tuple(names)


def _is_metadata(name: str) -> bool:
    return name.startswith(METADATA) and name != METADATA


def _parse_metadata(pairs: Sequence[str]) -> list[UsageFilter]:
    values: dict[Dimension, list[str]] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key:
            reject(f"--metadata {pair!r} is not possible: write KEY=VALUE.")
        values.setdefault(METADATA + key, []).append(value)
    return [UsageFilter(each, tuple(typed)) for each, typed in values.items()]


def _write_records(request: ReportRequest, reports: UsageReports, output: Path) -> int:
    """Write the usage records to a file, and return how many there are."""
    names = [column.name for column in ledger.columns]
    types: dict[type, ColumnType] = {int: "integer", bool: "flag"}
    columns: dict[str, ColumnType] = {
        **{column.name: types.get(column.type.python_type, "text") for column in ledger.columns},
        "at": "time",
        **dict.fromkeys(MONEY, "usd"),
    }
    since_ms, until_ms = request.since_ms, request.until_ms
    batches = reports.read_records(request.query.filters, since_ms=since_ms, until_ms=until_ms)
    extent, count = reports.read_extent(), 0
    with (
        exports.open_writer(output, columns) as write,
        progress(*Progress.get_default_columns()) as bar,
    ):
        start_ms, end_ms = since_ms or extent.start_ms, until_ms or extent.end_ms
        task = bar.add_task(output.name, total=end_ms - start_ms)
        for rows in batches:
            count += len(rows)
            batch: dict[str, Sequence[Any]] = dict(zip(names, zip(*rows, strict=True), strict=True))
            batch["metadata"] = [_unescape_json(each) for each in batch["metadata"]]
            batch["at"] = batch["at_ms"]
            batch |= {name: batch[nano] for name, nano in MONEY.items()}
            write(batch)
            bar.update(task, completed=batch["at_ms"][-1] - start_ms)
    return count


def _unescape_json(metadata: str) -> str:
    # The database stores every character beyond ASCII as an escape.
    return orjson.dumps(orjson.loads(metadata)).decode() if "\\u" in metadata else metadata
