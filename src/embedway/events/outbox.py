"""Keeps the deliveries of events in the database until they end.

A delivery is one event on its way to one webhook. Any replica may claim it for one try; if that
replica dies, the claim lapses and another one tries again. All times are ms since the epoch.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any, Literal

import msgspec
from sqlalchemy import Connection, Engine, case, delete, func, insert, select, update

from embedway.events.event import BEGINNINGS, Event, Webhook
from embedway.storage.availability import DatabaseAvailability
from embedway.storage.database import locked_transaction
from embedway.storage.query_threads import QueryThreads
from embedway.storage.tables import event_deliveries as deliveries

CLAIM_MS = 60_000
"""How long a claim lasts: far more than a try and its two queries may take."""
REMIND_MS = 3_600_000
"""How long a repeated beginning, such as another ejection of a deployment, is no news."""
KEEP_MS = 7 * 86_400_000
"""How long a delivery is kept, whatever became of it."""

State = Literal["waiting", "delivered", "failed"]


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """A claimed delivery."""

    webhook: str
    event: Event
    tries: int
    """How often it was tried, this time included."""
    claimed_until_ms: int


class DeliverySummary(msgspec.Struct, frozen=True, kw_only=True):
    """How the deliveries of one webhook stand."""

    waiting: int
    failed: int
    """Those given up in the last days."""
    last_result: str | None
    """What became of its latest try."""


class Outbox:
    """The deliveries to the webhooks of this configuration.

    Coroutines raise `StorageUnavailable` if the database cannot be reached.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        now_ms: Callable[[], int],
        webhooks: Sequence[Webhook] = (),
        availability: DatabaseAvailability | None = None,
    ) -> None:
        self.webhooks = webhooks
        """Those that receive what is added. Replace the list to change them."""
        self._engine = engine
        self.now_ms = now_ms
        unavailable = "Events cannot be kept."
        self._reads = QueryThreads(
            "events-read", use="read", availability=availability, unavailable=unavailable
        )
        self._writes = QueryThreads(
            "events", use="commit", availability=availability, unavailable=unavailable
        )

    def add(self, connection: Connection, event: Event) -> None:
        """Add an event to the transaction of its change: both are stored, or neither is."""
        rows = [
            {
                "event_id": event.id,
                "webhook": webhook.name,
                "type": event.type,
                "subject": event.subject,
                "at_ms": event.at_ms,
                "text": event.text,
                "data": event.data,
                "state": "waiting",
                "tries": 0,
                "next_ms": event.at_ms,
            }
            for webhook in self.webhooks
            if webhook.wants(event)
        ]
        if rows:
            connection.execute(insert(deliveries), rows)

    async def add_news(self, event: Event) -> None:
        """Store an event that several replicas may see, unless one has stored it already.

        A beginning is news if nothing has begun since the last end, or not for `REMIND_MS`; an end
        is news after a beginning.
        """
        if not any(webhook.wants(event) for webhook in self.webhooks):
            return

        def add() -> None:
            with locked_transaction(self._engine, lock="events") as connection:
                if self._is_news(connection, event):
                    self.add(connection, event)

        await self._writes.run(add)

    async def claim(self, webhook: str) -> Delivery | None:
        """Return a delivery to `webhook` that is due, for no other replica to try, or None."""

        def find() -> Any:
            query = (
                select(deliveries)
                .where(
                    deliveries.c.webhook == webhook,
                    deliveries.c.state == "waiting",
                    deliveries.c.next_ms <= self.now_ms(),
                )
                .order_by(deliveries.c.next_ms)
                .limit(1)
            )
            with self._engine.connect() as connection:
                return connection.execute(query).mappings().first()

        while row := await self._reads.run(find):
            until_ms = self.now_ms() + CLAIM_MS
            if await self._update(row, next_ms=until_ms, tries=row["tries"] + 1):
                return Delivery(
                    webhook=webhook,
                    event=Event(
                        id=row["event_id"],
                        **{
                            name: row[name] for name in ("type", "at_ms", "subject", "text", "data")
                        },
                    ),
                    tries=row["tries"] + 1,
                    claimed_until_ms=until_ms,
                )
        return None

    async def finish(
        self, delivery: Delivery, *, state: State, result: str, next_ms: int | None = None
    ) -> None:
        """End the claim, unless it lapsed; `next_ms` is the time of the next try of a waiting one.

        `result` says what the receiver did.
        """
        row = {
            "event_id": delivery.event.id,
            "webhook": delivery.webhook,
            "next_ms": delivery.claimed_until_ms,
        }
        await self._update(row, state=state, result=result, next_ms=next_ms or self.now_ms())

    async def prune(self) -> None:
        """Delete old deliveries."""

        def prune() -> None:
            with self._engine.begin() as connection:
                oldest_ms = self.now_ms() - KEEP_MS
                connection.execute(delete(deliveries).where(deliveries.c.at_ms < oldest_ms))

        await self._writes.run(prune)

    async def count_waiting(self) -> int:
        """Return how many deliveries wait, for the webhooks of this configuration."""
        names = [each.name for each in self.webhooks]
        query = (
            select(func.count())
            .select_from(deliveries)
            .where(deliveries.c.state == "waiting", deliveries.c.webhook.in_(names))
        )

        def count() -> int:
            with self._engine.connect() as connection:
                return connection.scalar(query) or 0

        return await self._reads.run(count)

    def close(self) -> None:
        """Finish the queries in progress and end the threads."""
        self._reads.close()
        self._writes.close()

    async def _update(self, row: Any, **values: object) -> bool:
        """Change the delivery if it is still as `row` says; return whether it was."""
        statement = (
            update(deliveries)
            .where(
                deliveries.c.event_id == row["event_id"],
                deliveries.c.webhook == row["webhook"],
                deliveries.c.next_ms == row["next_ms"],
                deliveries.c.state == "waiting",
            )
            .values(values)
        )

        def change() -> bool:
            with self._engine.begin() as connection:
                return connection.execute(statement).rowcount == 1

        return await self._writes.run(change)

    def _is_news(self, connection: Connection, event: Event) -> bool:
        query = (
            select(deliveries.c.type, deliveries.c.at_ms)
            .where(deliveries.c.subject == event.subject)
            .order_by(deliveries.c.at_ms.desc())
            .limit(1)
        )
        last = connection.execute(query).first()
        if event.type in BEGINNINGS:
            return last is not None and last.type == BEGINNINGS[event.type]
        return last is None or last.type != event.type or event.at_ms - last.at_ms >= REMIND_MS


def read_summaries(engine: Engine, names: Collection[str]) -> dict[str, DeliverySummary]:
    """Return how the deliveries of each of these webhooks stand."""

    def count(state: State) -> Any:
        return func.coalesce(func.sum(case((deliveries.c.state == state, 1), else_=0)), 0)

    summaries: dict[str, DeliverySummary] = {}
    with engine.connect() as connection:
        for name in names:
            of_it = deliveries.c.webhook == name
            waiting, failed = connection.execute(
                select(count("waiting"), count("failed")).where(of_it)
            ).one()
            last = connection.scalar(
                select(deliveries.c.result)
                .where(of_it, deliveries.c.result.is_not(None))
                .order_by(deliveries.c.at_ms.desc())
                .limit(1)
            )
            summaries[name] = DeliverySummary(waiting=waiting, failed=failed, last_result=last)
    return summaries
