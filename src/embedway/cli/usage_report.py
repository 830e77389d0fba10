"""Prints or writes the sums of `embedway usage` as rows, with names beside ids."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from embedway.cli import exports
from embedway.cli.exports import ColumnType
from embedway.cli.terminal import format_name_and_id, out, print_json, print_table
from embedway.core.money import NanoUsd, format_usd
from embedway.ledger.buckets import Width, to_local
from embedway.ledger.query import (
    REFUSAL_DIMENSIONS,
    Dimension,
    EntityNames,
    RefusalGroup,
    UsageGroup,
    UsageQuery,
    UsageTotals,
)
from embedway.ledger.reports import UsageReports

WIDTHS: dict[str, Width] = {"day": "1d", "hour": "1h", "month": "1mo"}
DIMENSIONS: dict[str, Dimension] = {
    "model": "model",
    "provider": "provider",
    "key": "key_id",
    "project": "project_id",
    "user": "end_user",
    "on_behalf_of": "on_behalf_of",
    "reason": "reason",
}
MONEY = {"cost_usd": "cost_nano_usd", "upstream_cost_usd": "upstream_cost_nano_usd"}

_FIGURES = UsageTotals.__struct_fields__
_NAMED = {"project", "key"}
"""The dimensions that have a name beside their id."""

Row = dict[str, Any]


class ReportRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One report: what to sum by and over which time."""

    names: tuple[str, ...]
    """The names that `--by` lists, such as `day` and `model`."""
    query: UsageQuery
    since_ms: int | None
    until_ms: int | None
    refused: bool = False
    """Whether to count refused requests instead of usage."""


def print_report(request: ReportRequest, reports: UsageReports, *, as_json: bool) -> None:
    """Print the sums, and below a table of usage the refused requests of the same time."""
    if as_json:
        rows = _read_rows(request, reports)
        print_json([_with_costs(each, lambda nano: float(format_usd(nano))) for each in rows])
        return
    print_table(_table_rows(request, reports), empty=_empty_message(request))
    if request.refused or (refusals := _refusals_of(request)) is None:
        return
    if rows := _table_rows(refusals, reports):
        out.print("\nRefused requests (--refused shows them by day):\n")
        print_table(rows)


def write_report(request: ReportRequest, reports: UsageReports, output: Path) -> int:
    """Write the sums to a file, with exact costs, and return how many there are."""
    columns: dict[str, ColumnType] = {
        column: "text"
        for name in request.names
        for column in ((name, f"{name}_name") if name in _NAMED else (name,))
    }
    if request.refused:
        columns["requests"] = "integer"
    else:
        columns |= {**dict.fromkeys(_FIGURES, "integer"), **dict.fromkeys(MONEY, "usd")}
    rows = _read_rows(request, reports)
    with exports.open_writer(output, columns) as write:
        write({name: [row[MONEY.get(name, name)] for row in rows] for name in columns})
    return len(rows)


def _table_rows(request: ReportRequest, reports: UsageReports) -> list[Row]:
    """Return the rows of a table: names and ids in one column, and no column of zeros."""
    rows = [_with_costs(each, format_usd) for each in _read_rows(request, reports)]
    for row in rows:
        for name in _NAMED & row.keys():
            row[name] = format_name_and_id(row.pop(f"{name}_name"), row[name])
    figures = {*_FIGURES, *MONEY} - {"requests"}
    zeros = {name for name in figures if not any(float(row.get(name, 0)) for row in rows)}
    return [{name: row[name] for name in row if name not in zeros} for row in rows]


def _refusals_of(request: ReportRequest) -> ReportRequest | None:
    """Return the report of refused requests to print below `request`.

    Returns None if `request` filters by a dimension that refused requests do not have.
    """
    if not {each.dimension for each in request.query.filters} <= REFUSAL_DIMENSIONS:
        return None
    names = ("project", *(["key"] if "key" in request.names else []), "reason")
    query = msgspec.structs.replace(
        request.query, group_by=tuple(DIMENSIONS[name] for name in names), width=None
    )
    return msgspec.structs.replace(request, names=names, query=query, refused=True)


def _read_rows(request: ReportRequest, reports: UsageReports) -> list[Row]:
    """Return all sums with their labels, sorted by what `--by` lists. Costs are in nano-USD."""
    sum_up = reports.count_refusals if request.refused else reports.sum_usage
    groups = sum_up(request.query, since_ms=request.since_ms, until_ms=request.until_ms)
    values_by_group: list[Row] = [
        dict(zip(request.query.group_by, each.group, strict=True))
        | dict.fromkeys(WIDTHS, each.bucket.start_ms)
        for each in groups
    ]
    names = reports.read_names(
        projects={id for each in values_by_group if (id := each.get("project_id"))},
        keys={id for each in values_by_group if (id := each.get("key_id"))},
    )

    def order(pair: tuple[UsageGroup | RefusalGroup, Row]) -> list[tuple[bool, Any]]:
        # Sort by the time, not by its label: when clocks go back, an hour's label occurs twice.
        values = [pair[1][DIMENSIONS.get(name, name)] for name in request.names]
        return [(each is not None, each) for each in values]

    return [
        _labels(values, names, request)
        | (
            {"requests": group.requests}
            if isinstance(group, RefusalGroup)
            else msgspec.structs.asdict(group.totals)
        )
        for group, values in sorted(zip(groups, values_by_group, strict=True), key=order)
    ]


def _labels(values: Row, names: EntityNames, request: ReportRequest) -> Row:
    """Return the columns that say what a sum is for: times, ids and their names."""
    labels: Row = {}
    entity_names = names.label(values)
    for name in request.names:
        dimension = DIMENSIONS.get(name, name)
        labels[name] = values[dimension]
        if name in WIDTHS:
            labels[name] = _format_start(name, to_local(values[name], request.query.zone))
        if name in _NAMED:
            labels[f"{name}_name"] = entity_names[dimension]
    return labels


def _format_start(width: str, start: datetime) -> str:
    if width == "hour":
        return start.replace(minute=0).isoformat(timespec="minutes")
    return f"{start:%Y-%m}" if width == "month" else start.date().isoformat()


def _with_costs(row: Row, format: Callable[[NanoUsd], object]) -> Row:
    """Return the row to print: costs in USD as `format` gives them, and no calls."""
    hidden = {"calls", *MONEY.values()}
    printed = {name: value for name, value in row.items() if name not in hidden}
    return printed | {name: format(row[nano]) for name, nano in MONEY.items() if nano in row}


def _empty_message(request: ReportRequest) -> str:
    what = "refused requests" if request.refused else "usage"
    when = "" if request.since_ms is None and request.until_ms is None else " in that time"
    filters = " for that" if request.query.filters else ""
    return f"No {what}{when}{filters}." if when or filters else f"No {what} yet."
