"""`embedway ledger`: delete old lines, and prove that sums are those of the lines."""

from datetime import UTC, datetime
from itertools import chain, islice
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, TimeRemainingColumn

from embedway.cli import options
from embedway.cli.administration import Yes, confirm, open_service
from embedway.cli.options import as_typed
from embedway.cli.plural import count_are, count_of
from embedway.cli.terminal import AsJson, escape, load_store, out, print_json, progress, reject
from embedway.core.clock import now_ms
from embedway.ledger import recount, retention
from embedway.ledger.recount import RollupDifference
from embedway.ledger.rollups import DAY_MS

SHOWN = 20
MAX_DAYS = 36_500

commands = typer.Typer(
    no_args_is_help=True, help="Delete old usage lines, and check sums against lines."
)


@commands.command()
def prune(
    before: Annotated[
        datetime | None,
        options.day("--before", help="Delete lines older than this UTC day, such as 2026-11-01."),
    ] = None,
    keep_days: Annotated[
        int | None,
        options.whole_number(
            "--keep-days",
            least=0,
            most=MAX_DAYS,
            example=90,
            help="Keep the lines of today and of the N days before it.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count them; delete nothing.")] = False,
    yes: Yes = False,
) -> None:
    """Delete old lines of the ledger. What is summed by hour and day stays, and so do budgets.

    A line says what one request cost, for whom and with which metadata. Without it, usage of that
    time can still be had by hour, day, project, key, model, provider and end user, but not by
    metadata or minute. Gateways may run meanwhile. The room is used for new lines.

        embedway ledger prune --keep-days 90 --dry-run

        embedway ledger prune --before 2026-01-01 --yes
    """
    before_ms = _before_ms(before, keep_days)
    engine = load_store().database
    count, date = retention.count_older(engine, before_ms), _date(before_ms)
    if dry_run or not count:
        out.print(f"{_older(count, date)}.")
        return
    confirm(
        f"Delete {count_of(count, 'usage record')} older than {date} for good?",
        yes=yes,
        again=f"embedway ledger prune --before {date} --yes",
    )
    acts, actor = open_service()
    acts.record_ledger_action(actor, "ledger.pruned", {"before": date, "lines": count})
    deleted = 0
    with progress(BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()) as bar:
        task = bar.add_task("prune", total=count)
        for some in retention.prune(engine, before_ms):
            deleted += some
            bar.advance(task, some)
    out.print(f"Deleted {count_of(deleted, 'usage record')} older than {date}.")


@commands.command()
def check(
    repair: Annotated[
        bool, typer.Option("--repair", help="Compute sums that differ again from the lines.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compare the sums by hour and day with the lines, and show where they differ.

    Budgets are held and usage is reported by these sums. Each is committed with its lines, so a
    difference means that somebody else wrote to the database or that it was damaged. Only days
    whose lines are kept can be checked. The exit status is 1 if sums differ and are not repaired.
    """
    engine = load_store().database
    found: list[RollupDifference] = []
    checked = differing = repaired = 0
    for day_ms in recount.recorded_days(engine):
        checked += 1
        here = recount.find_differences(engine, day_ms)
        if not here:
            continue
        differing += 1
        found = list(islice(chain(found, here), SHOWN))
        if repair:
            acts, actor = open_service()
            acts.record_ledger_action(actor, "ledger.repaired", {"day": _date(day_ms)})
            recount.repair(engine, day_ms)
            repaired += 1
    if as_json:
        print_json(
            {
                "days": checked,
                "days_that_differ": differing,
                "days_repaired": repaired,
                "first_differences": [
                    {"table": each.table, "of": each.key, "sum": each.column, "kept": each.stored,
                     "lines": each.computed} for each in found
                ],
            }
        )  # fmt: skip
    else:
        _tell(found, checked=checked, differing=differing, repaired=repaired)
    if differing > repaired:
        raise typer.Exit(1)


def _tell(found: list[RollupDifference], *, checked: int, differing: int, repaired: int) -> None:
    for each in found:
        of = ", ".join(f"{name} {_shown(name, value)!r}" for name, value in each.key.items())
        out.print(
            escape(
                f"{each.table}: {each.column} is {each.stored}, but {each.computed} by the records "
                f"({of})"
            )
        )
    days = count_of(checked, "day")
    if not differing:
        out.print(f"The sums agree with the usage records: {days} checked.")
    elif repaired:
        out.print(f"Repaired the sums of {count_of(differing, 'day')}; {days} checked.")
    else:
        out.print(
            f"The sums of {count_of(differing, 'day')} differ from the usage records; {days} "
            "checked. The first differences are above. `embedway ledger check --repair` computes "
            "these sums again from the records."
        )


def _before_ms(before: datetime | None, keep_days: int | None) -> int:
    today_ms = now_ms() // DAY_MS * DAY_MS
    if keep_days is not None and before is None:
        return today_ms - keep_days * DAY_MS
    if before is None or keep_days is not None:
        reject("Give either --before or --keep-days: embedway ledger prune --keep-days 90")
    before_ms = round(before.replace(tzinfo=UTC).timestamp() * 1000)
    if before_ms > today_ms:
        reject(
            f"--before {as_typed(before)!r} is in the future: lines of today are still being "
            f"written. The latest is --before {_date(today_ms)}"
        )
    return before_ms


def _shown(name: str, value: int | str) -> int | str:
    if name != "at_ms":
        return value
    return datetime.fromtimestamp(int(value) / 1000, UTC).strftime("%Y-%m-%dT%H:%MZ")


def _older(count: int, date: str) -> str:
    return f"{count_are(count, 'usage record').capitalize()} older than {date}"


def _date(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).date().isoformat()
