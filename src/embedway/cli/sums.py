"""The sums that `embedway usage` prints or writes: their rows, with names beside ids.

Owns what a row has and how wide it may be. Knows nothing of how a question is typed.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from embedway.cli import exports
from embedway.cli.exports import Kind
from embedway.cli.terminal import named, out, print_json, print_table
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
"""What has a name beside its id."""

Row = dict[str, Any]


class ReportRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for, and of which time."""

    names: tuple[str, ...]
    """What to sum by, as it was typed."""
    query: UsageQuery
    since_ms: int | None
    until_ms: int | None
    refused: bool = False
    """Whether refused requests are counted, instead of usage."""


def show(asked: ReportRequest, source: UsageReports, *, as_json: bool) -> None:
    """Print the sums; below usage, a table for people has the refused requests of that time."""
    if as_json:
        print_json([group | _figures(each, exact=False) for each, group in _found(asked, source)])
        return
    print_table(_for_people(asked, source), empty=_none(asked), as_json=False)
    if asked.refused or (refusals := _refusals(asked)) is None:
        return
    if refused := _for_people(refusals, source):
        out.print("\nRefused requests (--refused shows them by day):\n")
        print_table(refused, empty="", as_json=False)


def write(asked: ReportRequest, source: UsageReports, output: Path) -> int:
    """Write the sums to a file, with exact costs, and say how many there are."""
    figures: dict[str, Kind] = {"requests": "integer"}
    if not asked.refused:
        figures = {**dict.fromkeys(_FIGURES, "integer"), **dict.fromkeys(MONEY, "usd")}
    groups: dict[str, Kind] = dict.fromkeys(_columns(asked), "text")
    found = _found(asked, source)
    rows = [
        group | {name: getattr(_sums(each), MONEY.get(name, name)) for name in figures}
        for each, group in found
    ]
    columns = groups | figures
    with exports.writer(output, columns) as write:
        write({name: [row[name] for row in rows] for name in columns})
    return len(rows)


def _for_people(asked: ReportRequest, source: UsageReports) -> list[Row]:
    """The rows of a table: names and ids in one column, and no column of zeros."""
    rows = [_joined(group) | _figures(each, exact=True) for each, group in _found(asked, source)]
    figures = {*_COUNTS, *MONEY} - {"requests"}
    zeros = {name for name in figures if not any(float(row.get(name, 0)) for row in rows)}
    return [{name: row[name] for name in row if name not in zeros} for row in rows]


def _refusals(asked: ReportRequest) -> ReportRequest | None:
    """The refused requests that belong below `asked`; None if it asks for what they do not have."""
    if not {each.dimension for each in asked.query.filters} <= REFUSAL_DIMENSIONS:
        return None
    names = ("project", *(["key"] if "key" in asked.names else []), "reason")
    query = msgspec.structs.replace(
        asked.query, group_by=tuple(DIMENSIONS[name] for name in names), width=None
    )
    return msgspec.structs.replace(asked, names=names, query=query, refused=True)


def _found(
    asked: ReportRequest, source: UsageReports
) -> list[tuple[UsageGroup | RefusalGroup, Row]]:
    """All sums with what they are of, in the order that was asked for."""
    sum_up = source.count_refusals if asked.refused else source.sum_usage
    found = sum_up(asked.query, since_ms=asked.since_ms, until_ms=asked.until_ms)
    by = [DIMENSIONS.get(name, name) for name in asked.names]
    groups = [dict(zip(asked.query.group_by, each.group, strict=True)) for each in found]
    names = source.read_names(
        projects={id for each in groups if (id := each.get("project_id"))},
        keys={id for each in groups if (id := each.get("key_id"))},
    )

    def order(
        pair: tuple[UsageGroup | RefusalGroup, dict[Dimension, str | None]],
    ) -> list[tuple[bool, Any]]:
        each, values = pair
        # By the time, not its name: an hour of autumn is there twice.
        at = (True, each.bucket.start_ms)
        return [(values[of] is not None, values[of]) if of in values else at for of in by]

    return [
        (each, dict(_group(each.bucket.start_ms, values, names, asked)))
        for each, values in sorted(zip(found, groups, strict=True), key=order)
    ]


def _group(
    start_ms: int, values: dict[Dimension, str | None], names: EntityNames, asked: ReportRequest
) -> Iterator[tuple[str, str | None]]:
    begins = to_local(start_ms, asked.query.zone)
    times = {
        "day": begins.date().isoformat(),
        "month": f"{begins:%Y-%m}",
        "hour": begins.replace(minute=0, second=0, microsecond=0).isoformat(timespec="minutes"),
    }
    called = names.label(values)
    for name in asked.names:
        of = DIMENSIONS.get(name, name)
        yield name, times[name] if name in times else values[of]
        if name in _NAMED:
            yield f"{name}_name", called[of]


def _columns(asked: ReportRequest) -> list[str]:
    """The names of what `_group` gives."""
    return [
        column
        for name in asked.names
        for column in ((name, f"{name}_name") if name in _NAMED else (name,))
    ]


def _joined(group: Row) -> Row:
    """The group with each name beside its id in one column."""
    joined = dict(group)
    for name in _NAMED:
        if name in joined:
            joined[name] = named(joined.pop(f"{name}_name"), joined[name])
    return joined


def _sums(each: UsageGroup | RefusalGroup) -> UsageTotals | RefusalGroup:
    return each if isinstance(each, RefusalGroup) else each.totals


def _figures(each: UsageGroup | RefusalGroup, *, exact: bool) -> Row:
    """The figures of a row; costs are text if they are to be `exact`."""
    if isinstance(each, RefusalGroup):
        return {"requests": each.requests}
    counts = {name: getattr(each.totals, name) for name in _COUNTS}
    costs = {name: format_usd(getattr(each.totals, nano)) for name, nano in MONEY.items()}
    return counts | (costs if exact else {name: float(value) for name, value in costs.items()})


def _none(asked: ReportRequest) -> str:
    what = "refused requests" if asked.refused else "usage"
    at = "" if asked.since_ms is None and asked.until_ms is None else " in that time"
    of = " for that" if asked.query.filters else ""
    return f"No {what}{at}{of}." if at or of else f"No {what} yet."
