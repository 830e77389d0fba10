"""Prints or writes the sums of `embedway usage` as rows, with names beside ids."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from embedway.cli import exports
from embedway.cli.exports import ColumnType
from embedway.cli.terminal import format_name_and_id, out, print_json, print_table
from embedway.core.money import format_usd
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
_COUNTS = tuple(name for name in _FIGURES if name not in {*MONEY.values(), "calls"})
_NAMED = ("project", "key")
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
        groups = _read_groups(request, reports)
        print_json([labels | _figures(each, exact=False) for each, labels in groups])
        return
    print_table(_table_rows(request, reports), empty=_empty_message(request))
    if request.refused or (refusals := _refusals_of(request)) is None:
        return
    if rows := _table_rows(refusals, reports):
        out.print("\nRefused requests (--refused shows them by day):\n")
        print_table(rows)


def write_report(request: ReportRequest, reports: UsageReports, output: Path) -> int:
    """Write the sums to a file, with exact costs, and return how many there are."""
    figures: dict[str, ColumnType] = {"requests": "integer"}
    if not request.refused:
        figures = {**dict.fromkeys(_FIGURES, "integer"), **dict.fromkeys(MONEY, "usd")}
    labels: dict[str, ColumnType] = {
        column: "text"
        for name in request.names
        for column in ((name, f"{name}_name") if name in _NAMED else (name,))
    }
    rows = [
        row
        | {
            name: getattr(
                each if isinstance(each, RefusalGroup) else each.totals, MONEY.get(name, name)
            )
            for name in figures
        }
        for each, row in _read_groups(request, reports)
    ]
    columns = labels | figures
    with exports.open_writer(output, columns) as write:
        write({name: [row[name] for row in rows] for name in columns})
    return len(rows)


def _table_rows(request: ReportRequest, reports: UsageReports) -> list[Row]:
    """Return the rows of a table: names and ids in one column, and no column of zeros."""
    rows = [
        _join_names_and_ids(labels) | _figures(each, exact=True)
        for each, labels in _read_groups(request, reports)
    ]
    figures = {*_COUNTS, *MONEY} - {"requests"}
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


def _read_groups(
    request: ReportRequest, reports: UsageReports
) -> list[tuple[UsageGroup | RefusalGroup, Row]]:
    """Return all sums with their labels, sorted by what `--by` lists."""
    sum_up = reports.count_refusals if request.refused else reports.sum_usage
    groups = sum_up(request.query, since_ms=request.since_ms, until_ms=request.until_ms)
    by = [DIMENSIONS.get(name, name) for name in request.names]
    values_by_group = [
        dict(zip(request.query.group_by, each.group, strict=True)) for each in groups
    ]
    names = reports.read_names(
        projects={id for each in values_by_group if (id := each.get("project_id"))},
        keys={id for each in values_by_group if (id := each.get("key_id"))},
    )

    def order(
        pair: tuple[UsageGroup | RefusalGroup, dict[Dimension, str | None]],
    ) -> list[tuple[bool, Any]]:
        group, values = pair
        # Sort by the time, not by its label: when clocks go back, an hour's label occurs twice.
        start = (True, group.bucket.start_ms)
        return [
            (values[each] is not None, values[each]) if each in values else start for each in by
        ]

    return [
        (group, dict(_labels(group.bucket.start_ms, values, names, request)))
        for group, values in sorted(zip(groups, values_by_group, strict=True), key=order)
    ]


def _labels(
    start_ms: int, values: dict[Dimension, str | None], names: EntityNames, request: ReportRequest
) -> Iterator[tuple[str, str | None]]:
    """Yield the columns that say what a sum is for: times, ids and their names."""
    start = to_local(start_ms, request.query.zone)
    times = {
        "day": start.date().isoformat(),
        "month": f"{start:%Y-%m}",
        "hour": start.replace(minute=0, second=0, microsecond=0).isoformat(timespec="minutes"),
    }
    entity_names = names.label(values)
    for name in request.names:
        dimension = DIMENSIONS.get(name, name)
        yield name, times[name] if name in times else values[dimension]
        if name in _NAMED:
            yield f"{name}_name", entity_names[dimension]


def _join_names_and_ids(labels: Row) -> Row:
    joined = dict(labels)
    for name in _NAMED:
        if name in joined:
            joined[name] = format_name_and_id(joined.pop(f"{name}_name"), joined[name])
    return joined


def _figures(each: UsageGroup | RefusalGroup, *, exact: bool) -> Row:
    """Return the figures of a row. Costs are text if `exact`, else floats."""
    if isinstance(each, RefusalGroup):
        return {"requests": each.requests}
    counts = {name: getattr(each.totals, name) for name in _COUNTS}
    costs = {name: format_usd(getattr(each.totals, nano)) for name, nano in MONEY.items()}
    return counts | (costs if exact else {name: float(value) for name, value in costs.items()})


def _empty_message(request: ReportRequest) -> str:
    what = "refused requests" if request.refused else "usage"
    when = "" if request.since_ms is None and request.until_ms is None else " in that time"
    filters = " for that" if request.query.filters else ""
    return f"No {what}{when}{filters}." if when or filters else f"No {what} yet."
