"""The record of administrative acts at rest: added to and read, never changed."""

from collections.abc import Collection

import msgspec
from sqlalchemy import ColumnElement, Connection, func, insert, select

from embedway.core.page import Page
from embedway.organization.audit_event import AuditEvent
from embedway.storage import pages, records
from embedway.storage.tables import audit

LOCK = "organisation"
"""What every transaction that adds to it holds, so that ids are in the order of acts."""

_PREFIX = "audit_"


class AuditFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which acts: all, but for what is said."""

    actions: Collection[str] = ()
    """Any of these."""
    project_ids: Collection[str] = ()
    actors: Collection[str] = ()
    targets: Collection[str] = ()
    since_ms: int | None = None
    """From this time on."""
    until_ms: int | None = None
    """Up to but without this time."""


class AuditStore:
    """The record, in one transaction; to add to it is to hold `LOCK`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, act: AuditEvent) -> None:
        """Adds an act, after all others."""
        last = self._connection.scalar(select(func.max(audit.c.id)))
        number = int(last.removeprefix(_PREFIX), 16) + 1 if last else 1
        numbered = msgspec.structs.replace(act, id=f"{_PREFIX}{number:016x}")
        self._connection.execute(insert(audit).values(records.to_row(numbered)))

    def page(self, wanted: AuditFilter, *, after: str | None, limit: int) -> Page[AuditEvent]:
        """The next of them, latest first."""
        among = (
            (audit.c.action, wanted.actions),
            (audit.c.project_id, wanted.project_ids),
            (audit.c.actor, wanted.actors),
            (audit.c.target, wanted.targets),
        )
        filters: list[ColumnElement[bool]] = [
            column.in_(list(values)) for column, values in among if values
        ]
        if after is not None:
            pages.check_place(self._connection, audit.c.id, after)
        if wanted.since_ms is not None:
            filters.append(audit.c.at_ms >= wanted.since_ms)
        if wanted.until_ms is not None:
            filters.append(audit.c.at_ms < wanted.until_ms)
        return pages.read_page(
            self._connection,
            select(audit),
            *filters,
            type=AuditEvent,
            by=(audit.c.id,),
            after=after,
            limit=limit,
            descending=True,
        )
