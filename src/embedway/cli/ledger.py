"""`embedway ledger`: deletes old usage records, and compares sums with records."""

from datetime import UTC, datetime
from itertools import chain, islice
from typing import Annotated

import typer

from embedway.cli import options
from embedway.cli.administration import Yes, confirm, open_service
from embedway.cli.options import format_typed_time
from embedway.cli.setup import open_store
from embedway.cli.terminal import AsJson, count_are, count_of, print_json, progress, reject, say
from embedway.core.clock import now_ms
from embedway.ledger import recount, retention
from embedway.ledger.recount import RollupDifference
from embedway.ledger.rollups import DAY_MS

SHOWN = 20
"""The most differences to print."""
MAX_DAYS = 36_500

commands = typer.Typer(
    no_args_is_help=True, help="Delete old usage records, and check sums against records."
)


@commands.command()
def prune(
    before: Annotated[
        datetime | None,
        options.day("--before", help="Delete records older than this UTC day, such as 2026-11-01."),
    ] = None,
    keep_days: Annotated[
        int | None,
        options.whole_number(
            "--keep-days",
            least=0,
            most=MAX_DAYS,
            example=90,
            help="Keep the records of today and of the N days before it.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count the records; delete nothing.")
    ] = False,
    yes: Yes = False,
) -> None:
    """Delete old usage records. The sums by hour and day stay, and so do budgets.

    A record says what one request cost, for whom, and with which metadata. Without records, you can
    still report usage by hour, day, project, key, model, provider and end user, but not by metadata
    or minute. Gateways may run meanwhile. New records reuse the disk space.

        embedway ledger prune --keep-days 90 --dry-run

        embedway ledger prune --before 2026-01-01 --yes
    """
    before_ms = _before_ms(before, keep_days)
    engine = open_store().database
    count, date = retention.count_older(engine, before_ms), _date(before_ms)
    if dry_run or not count:
        say(f"{count_are(count, 'usage record').capitalize()} older than {date}.")
        return
    confirm(
        f"Delete {count_of(count, 'usage record')} older than {date} for good?",
        yes=yes,
        again=f"embedway ledger prune --before {date} --yes",
    )
    service, actor = open_service()
    service.record_ledger_action(actor, "ledger.pruned", {"before": date, "lines": count})
    deleted = 0
    with progress() as bar:
        task = bar.add_task("prune", total=count)
        for batch_count in retention.prune(engine, before_ms):
            deleted += batch_count
            bar.advance(task, batch_count)
    say(f"Deleted {count_of(deleted, 'usage record')} older than {date}.")


@commands.command()
def check(
    repair: Annotated[
        bool, typer.Option("--repair", help="Compute sums that differ again from the records.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compare the sums by hour and day with the usage records, and show where they differ.

    Budgets and usage reports rely on these sums. Each sum is committed together with its records,
    so a difference means that something else wrote to the database or that it was damaged. Only
    days whose records are kept can be checked. The exit status is 1 if sums differ and are not
    repaired.
    """
    engine = open_store().database
    first: list[RollupDifference] = []
    checked = differing = 0
    for day_ms in recount.recorded_days(engine):
        checked += 1
        differences = recount.find_differences(engine, day_ms)
        if not differences:
            continue
        differing += 1
        first = list(islice(chain(first, differences), SHOWN))
        if repair:
            service, actor = open_service()
            service.record_ledger_action(actor, "ledger.repaired", {"day": _date(day_ms)})
            recount.repair(engine, day_ms)
    if as_json:
        print_json(
            {
                "days": checked,
                "days_that_differ": differing,
                "days_repaired": differing if repair else 0,
                "first_differences": [
                    {"table": each.table, "of": each.key, "sum": each.column, "kept": each.stored,
                     "lines": each.computed} for each in first
                ],
            }
        )  # fmt: skip
    else:
        _print_differences(first, checked=checked, differing=differing, repaired=repair)
    if differing and not repair:
        raise typer.Exit(1)


def _print_differences(
    first: list[RollupDifference], *, checked: int, differing: int, repaired: bool
) -> None:
    for each in first:
        of = ", ".join(f"{name} {_format_value(name, value)!r}" for name, value in each.key.items())
        say(
            f"{each.table}: {each.column} is {each.stored}, but {each.computed} by the records "
            f"({of})"
        )
    days = count_of(checked, "day")
    if not differing:
        say(f"The sums agree with the usage records: {days} checked.")
    elif repaired:
        say(f"Repaired the sums of {count_of(differing, 'day')}; {days} checked.")
    else:
        say(
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
            f"--before {format_typed_time(before)!r} is in the future: today's records are still "
            f"being written. The latest is --before {_date(today_ms)}"
        )
    return before_ms


def _format_value(name: str, value: int | str) -> int | str:
    if name != "at_ms":
        return value
    return datetime.fromtimestamp(int(value) / 1000, UTC).strftime("%Y-%m-%dT%H:%MZ")


def _date(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).date().isoformat()
