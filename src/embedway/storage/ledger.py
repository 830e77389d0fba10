"""The usage ledger at rest: one writer that commits waiting rows in groups, and the report."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Literal, get_args

import msgspec
from sqlalchemy import ColumnElement, Engine, case, func, insert, select
from sqlalchemy.exc import SQLAlchemyError

from embedway.core.errors import StorageUnavailable
from embedway.core.grouping import GroupWorker
from embedway.core.usage import UsageRow
from embedway.storage.tables import usage

MAX_GROUP_ROWS = 1_000
MAX_WAITING_ROWS = 20_000
DAY_MS = 86_400_000

Dimension = Literal["day", "model", "provider", "key", "user", "on_behalf_of"]
DIMENSIONS: tuple[Dimension, ...] = get_args(Dimension)

_GROUPS: dict[Dimension, ColumnElement[Any]] = {
    "day": usage.c.at_ms // DAY_MS,
    "model": usage.c.model,
    "provider": usage.c.provider,
    "key": usage.c.key_id,
    "user": usage.c.user,
    "on_behalf_of": usage.c.on_behalf_of,
}


class UsageSum(msgspec.Struct, frozen=True, kw_only=True):
    """Usage summed over one group."""

    group: dict[str, str | None]
    requests: int
    """Answered with 200."""
    errors: int
    """Well-formed requests answered with anything else, but for 503."""
    items: int
    tokens: int
    estimated_tokens: int
    """Of these, how many are an estimate."""
    unpriced_tokens: int
    """Of these, how many have no known price, and so cost nothing here."""
    cost_nano_usd: int


class SqlLedger:
    """The usage ledger on a SQL database."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        # Rows that wait while one commit runs make the next group: the busier, the larger.
        self._writer = GroupWorker[UsageRow, None](
            self._commit,
            name="ledger",
            group_weight=MAX_GROUP_ROWS,
            max_waiting_weight=MAX_WAITING_ROWS,
        )

    async def record(self, row: UsageRow) -> None:
        """See `embedway.ports.storage.Ledger.record`."""
        try:
            await self._writer.submit((row,))
        except SQLAlchemyError as error:
            # Each of the group gets an error of its own, with its own time to come back.
            raise StorageUnavailable("Usage cannot be recorded right now. Try again.") from error

    @property
    def alive(self) -> bool:
        """Whether rows get committed."""
        return self._writer.alive

    @property
    def waiting(self) -> int:
        """Rows not yet taken by the writer."""
        return self._writer.waiting_weight

    def close(self) -> None:
        """Commits what waits and stops the writer."""
        self._writer.close()

    def _commit(self, rows: list[UsageRow]) -> Iterator[tuple[Sequence[int], Sequence[None]]]:
        with self._engine.begin() as connection:
            connection.execute(insert(usage), [msgspec.structs.asdict(row) for row in rows])
        yield range(len(rows)), [None] * len(rows)


def report(
    engine: Engine,
    by: Sequence[Dimension],
    *,
    since_ms: int | None = None,
    until_ms: int | None = None,
) -> list[UsageSum]:
    """Usage from `since_ms` up to but without `until_ms`, summed by each of `by`, in order.

    Days are UTC. Times are milliseconds since 1970-01-01 UTC.
    """
    groups = [_GROUPS[name].label(name) for name in by]
    answered = usage.c.status == HTTPStatus.OK
    tokens = usage.c.tokens
    sums = (
        func.coalesce(func.sum(case((which, value), else_=0)), 0)
        for which, value in (
            (~answered, 1),
            (answered, 1),
            (answered, usage.c["items"]),
            (answered, tokens),
            (answered & usage.c.estimated, tokens),
            (answered & ~usage.c.priced, tokens),
            (answered, usage.c.cost_nano_usd),
        )
    )
    query = select(*groups, *sums).group_by(*groups).order_by(*groups)
    if since_ms is not None:
        query = query.where(usage.c.at_ms >= since_ms)
    if until_ms is not None:
        query = query.where(usage.c.at_ms < until_ms)
    with engine.connect() as connection:
        return [_usage_sum(by, tuple(row)) for row in connection.execute(query)]


def _usage_sum(by: Sequence[Dimension], row: tuple[Any, ...]) -> UsageSum:
    group: dict[str, Any] = dict(zip(by, row, strict=False))
    if "day" in group:
        group["day"] = datetime.fromtimestamp(group["day"] * DAY_MS / 1000, UTC).date().isoformat()
    errors, requests, items, tokens, estimated, unpriced, cost = map(int, row[len(by) :])
    return UsageSum(
        group=group, requests=requests, errors=errors, items=items, tokens=tokens,
        estimated_tokens=estimated, unpriced_tokens=unpriced, cost_nano_usd=cost,
    )  # fmt: skip
