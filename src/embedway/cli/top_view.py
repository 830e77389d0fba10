"""Draws what `embedway top` shows, cut to fit the terminal. It sends nothing and reads no keys."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Literal

import msgspec
from rich.console import Console, ConsoleOptions, RenderableType
from rich.table import Table
from rich.text import Text

from embedway.cli.terminal import out, visible

MAX_SIDE_ROWS = 6
"""The most refusals, and the most deployments, on a terminal."""
NUMBER_WIDTH = 9
MIN_NAME_WIDTH = 16
FIXED_LINES = 9
"""The lines of a terminal that hold no rows."""
MILLION = 1_000_000


class UsdAmount(msgspec.Struct, frozen=True):
    """An amount of money in USD."""

    value: float


class GroupActivity(msgspec.Struct, frozen=True, kw_only=True):
    """The usage of one group, as the gateway reports it."""

    project_id: str | None = None
    project_name: str | None = None
    api_key_id: str | None = None
    api_key_name: str | None = None
    user_id: str | None = None
    model: str | None = None
    provider: str | None = None
    num_model_requests: int
    num_errors: int
    num_items: int
    input_tokens: int
    amount: UsdAmount
    latency_p50_ms: float | None
    latency_p99_ms: float | None


class RefusalActivity(msgspec.Struct, frozen=True, kw_only=True):
    """The refused requests of one key for one reason."""

    project_id: str | None
    project_name: str | None
    api_key_id: str | None
    api_key_name: str | None
    reason: str
    num_requests: int


class DeploymentActivity(msgspec.Struct, frozen=True, kw_only=True):
    """A deployment in use or in trouble."""

    id: str
    health: str
    drifted: bool
    in_flight: int
    wait_s: float


class ReplicaActivity(msgspec.Struct, frozen=True, kw_only=True):
    """The state of the replica that answered."""

    host: str
    process_id: int
    gauges: dict[str, float]
    deployments: list[DeploymentActivity]


class ActivityAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The gateway's answer; `docs/monitoring.md` explains it."""

    start_time: float
    end_time: float
    group_by: Literal["model", "provider", "project_id", "api_key_id", "user_id"]
    total: GroupActivity
    results: list[GroupActivity]
    has_more: bool
    refusals_start_time: int
    refusals: list[RefusalActivity]
    replica: ReplicaActivity

    @property
    def seconds(self) -> float:
        """The length of the time that it covers."""
        return max(self.end_time - self.start_time, 0.001)


class Screen:
    """The picture of the latest answer."""

    def __init__(self, address: str, answers: deque[ActivityAnswer], *, help: str) -> None:
        """Draw the last of `answers`; rates of refusals are since the first of them."""
        self.problem = ""
        """Why there is no newer answer; empty if there is."""
        self._address = address
        self._answers = answers
        self._help = help

    def show(self, answer: ActivityAnswer) -> None:
        """Draw this answer from now on."""
        self._answers.append(answer)
        self.problem = ""

    def print_once(self) -> None:
        """Print the whole picture. In a pipe, no line is cut and none ends with blanks."""
        with out.capture() as captured:
            for each in self._parts(out.width, rows=None, side_rows=None):
                out.print(each)
        for line in captured.get().splitlines():
            print(line.rstrip())

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        """Draw the picture in the size of the terminal."""
        answer, rows = self._answers[-1], options.max_height - FIXED_LINES
        side_rows = max(1, min(MAX_SIDE_ROWS, rows // 3))
        for side in (answer.refusals, answer.replica.deployments):
            rows -= 2 + min(len(side), side_rows) if side else 0
        yield from self._parts(options.max_width, rows=max(rows, 1), side_rows=side_rows)
        style = "bold red" if self.problem else "dim"
        yield _line(self.problem or self._help, options.max_width, style)

    def _parts(
        self, width: int, *, rows: int | None, side_rows: int | None
    ) -> Iterator[RenderableType]:
        """Yield the picture, with at most so many rows of groups and of other tables, or all."""
        answer = self._answers[-1]
        at = datetime.fromtimestamp(answer.end_time, UTC)
        covered = f"last {answer.seconds:.3g} s of all replicas"
        yield _line(f"{self._address}   {covered}   {at:%H:%M:%S} UTC", width, "bold")
        yield Text()
        yield _groups_table(answer, width, rows)
        hidden = len(answer.results) - (len(answer.results) if rows is None else rows)
        if hidden > 0 or answer.has_more:
            yield _line(f"{max(hidden, 0)}{'+' * answer.has_more} more", width, "dim")
        yield Text()
        yield _replica_line(answer.replica, width)
        if answer.refusals:
            yield Text()
            yield _refusals_table(answer, self._answers[0], width, side_rows)
        if answer.replica.deployments:
            yield Text()
            yield _deployments_table(answer.replica.deployments, width, side_rows)


def _groups_table(answer: ActivityAnswer, width: int, rows: int | None) -> Table:
    places = max(1, (width - MIN_NAME_WIDTH) // NUMBER_WIDTH)
    shown = [each for each in _COLUMNS if each in _BY_IMPORTANCE[:places]]
    table = _table([answer.group_by.removesuffix("_id").replace("_", " ")], shown)
    named = [
        ("all", answer.total),
        *((_name(answer, each), each) for each in answer.results[:rows]),
    ]
    for name, each in named:
        table.add_row(
            _cut(name, width - NUMBER_WIDTH * len(shown)),
            *(_COLUMNS[column](each, answer.seconds) for column in shown),
            style="bold" if each is answer.total else None,
        )
    return table


def _name(answer: ActivityAnswer, group: GroupActivity) -> str:
    match answer.group_by:
        case "project_id":
            name = group.project_name or group.project_id
        case "api_key_id":
            name = group.api_key_name or group.api_key_id
        case field:
            name = getattr(group, field)
    return name or "(none)"


def _refusals_table(
    answer: ActivityAnswer, before: ActivityAnswer, width: int, rows: int | None
) -> Table:
    """List whose requests are refused and why, with the rate since the answer `before`."""
    since = datetime.fromtimestamp(answer.refusals_start_time, UTC)
    counts = {_refusal_key(each): each.num_requests for each in before.refusals}
    seconds = answer.end_time - before.end_time
    has_rate = seconds > 0 and before.refusals_start_time == answer.refusals_start_time
    rate_column = ["per s"] if has_rate else []
    table = _table(["project", "key", "reason"], [f"since {since:%H:%M}", *rate_column])
    text_width = (width - 3 * NUMBER_WIDTH) // 3
    for each in answer.refusals[:rows]:
        new = each.num_requests - counts.get(_refusal_key(each), 0)
        table.add_row(
            _cut(each.project_name or each.project_id or "(unknown)", text_width),
            _cut(each.api_key_name or each.api_key_id or "(unknown)", text_width),
            _cut(each.reason, text_width),
            f"{each.num_requests:,}",
            *([_format_rate(new / seconds)] if has_rate else []),
        )
    return table


def _refusal_key(refusal: RefusalActivity) -> tuple[str | None, str | None, str]:
    return refusal.project_id, refusal.api_key_id, refusal.reason


def _deployments_table(
    deployments: Sequence[DeploymentActivity], width: int, rows: int | None
) -> Table:
    table = _table(["deployment", "health"], ["in flight", "wait s"])
    for each in deployments[:rows]:
        health = "drifted" if each.drifted else each.health
        table.add_row(
            _cut(each.id, width - 4 * NUMBER_WIDTH),
            Text(health, style="" if health == "healthy" else "red"),
            f"{each.in_flight:,}",
            f"{each.wait_s:.0f}" if each.wait_s else "",
        )
    return table


def _replica_line(replica: ReplicaActivity, width: int) -> Text:
    """Describe the replica by its gauges, after what is wrong with it."""
    gauges = replica.gauges

    def filled(name: str, what: str) -> str:
        return f"{gauges.get(name, 0):,.0f} of {gauges.get(f'{name}_max', 0):,.0f} {what}"

    problems = [
        text
        for name, text in _BROKEN.items()
        if not gauges.get(name, 1)  # absent without Redis
    ]
    facts = [
        filled("requests_in_flight", "requests"),
        filled("queue_tokens", "queued tokens"),
        f"{gauges.get('ledger_rows_waiting', 0):,.0f} records wait",
    ]
    whose = f"replica {replica.host}, process {replica.process_id}: "
    return _line(whose + ", ".join(problems + facts), width, "bold red" if problems else "")


def _table(texts: Sequence[str], numbers: Sequence[str]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    for each in texts:
        table.add_column(each, no_wrap=True)
    for each in numbers:
        table.add_column(each, no_wrap=True, justify="right", min_width=NUMBER_WIDTH - 1)
    return table


def _line(text: str, width: int, style: str) -> Text:
    line = _cut(text, width)
    line.stylize(style)
    return line


def _cut(text: str, width: int) -> Text:
    """Return `text` in at most so many cells of a terminal, without what does not print."""
    cut = Text(visible(text), no_wrap=True)
    cut.truncate(max(width - 1, 4), overflow="ellipsis")
    return cut


def _format_rate(value: float) -> str:
    if value >= MILLION:
        return f"{value / MILLION:,.1f}M"
    return f"{value:,.0f}" if value >= 100 or value == 0 else f"{value:.3g}"  # noqa: PLR2004


def _format_ms(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}" if value >= 10 else f"{value:.1f}"  # noqa: PLR2004


def _format_usd(value: float) -> str:
    return f"{value:,.4f}" if value >= 0.0001 else "<0.0001" if value else "0"  # noqa: PLR2004


_COLUMNS: dict[str, Callable[[GroupActivity, float], str]] = {
    "req/s": lambda group, seconds: _format_rate(group.num_model_requests / seconds),
    "errors": lambda group, _: f"{group.num_errors:,}",
    "items/s": lambda group, seconds: _format_rate(group.num_items / seconds),
    "tokens/s": lambda group, seconds: _format_rate(group.input_tokens / seconds),
    "USD/min": lambda group, seconds: _format_usd(group.amount.value * 60 / seconds),
    "p50 ms": lambda group, _: _format_ms(group.latency_p50_ms),
    "p99 ms": lambda group, _: _format_ms(group.latency_p99_ms),
}
"""The columns of numbers, in order, and how to show each for a number of seconds."""
_BY_IMPORTANCE = ("req/s", "errors", "p99 ms", "tokens/s", "USD/min", "p50 ms", "items/s")
"""The columns that a narrow terminal shows first."""
_BROKEN = {
    "database_available": "the database is unavailable",
    "limits_shared": "Redis is away and limits are shared out",
}
"""What it means that a gauge is 0."""
