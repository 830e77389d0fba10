"""Defines the entries of the audit log, stores them and reads them back. They never change."""

from collections.abc import Collection, Mapping
from typing import Any, Literal, get_args

import msgspec
from sqlalchemy import ColumnElement, Connection, func, insert, select

from embedway.core.page import Page
from embedway.storage import pages, records
from embedway.storage.tables import audit

LOCK = "organisation"
"""The database lock that every writer of audit events holds, so that their ids sort in order of
time."""

_PREFIX = "audit_"

AuditAction = Literal[
    "project.created",
    "project.updated",
    "project.archived",
    "api_key.created",
    "api_key.updated",
    "api_key.rotated",
    "api_key.deleted",
    "end_user.created",
    "end_user.updated",
    "end_user.deleted",
    "ledger.pruned",
    "ledger.repaired",
    "configuration.reloaded",
]
"""The kinds of actions, named as OpenAI names them where it has the same one.

`api_key.deleted` means that the key was revoked for good."""
ACTIONS: tuple[AuditAction, ...] = get_args(AuditAction)


class AuditEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of the audit log. Entries are never changed; their ids sort in order of time."""

    id: str = ""
    """`audit_...`, assigned when the event is stored."""
    at_ms: int
    actor: str
    """The id of a key, `issuer:NAME` for a token of an outside issuer, or `cli:USER`."""
    action: AuditAction
    project_id: str | None
    """The project that the action concerns; None for admin keys, the ledger and the
    configuration."""
    target: str
    """The id of the project, key or end user, or `ledger` or `configuration`."""
    details: Mapping[str, Any] = {}
    """The fields of a new object, or each changed field with `from` and `to`. Never holds a secret
    or digest."""
    request_id: str | None = None


class AuditFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Selects audit events. An empty or missing field selects all."""

    actions: Collection[str] = ()
    project_ids: Collection[str] = ()
    actors: Collection[str] = ()
    targets: Collection[str] = ()
    since_ms: int | None = None
    """The earliest time to include, in ms since 1970-01-01 UTC."""
    until_ms: int | None = None
    """The time before which events are included, in ms since 1970-01-01 UTC."""


class AuditStore:
    """Reads and adds audit events in one transaction, which must hold `LOCK` to add."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, event: AuditEvent) -> None:
        """Store an event under the next id."""
        last = self._connection.scalar(select(func.max(audit.c.id)))
        number = int(last.removeprefix(_PREFIX), 16) + 1 if last else 1
        numbered = msgspec.structs.replace(event, id=f"{_PREFIX}{number:016x}")
        self._connection.execute(insert(audit).values(records.to_row(numbered)))

    def read_page(self, filter: AuditFilter, *, after: str | None, limit: int) -> Page[AuditEvent]:
        """Return the next page of events, latest first."""
        choices = (
            (audit.c.action, filter.actions),
            (audit.c.project_id, filter.project_ids),
            (audit.c.actor, filter.actors),
            (audit.c.target, filter.targets),
        )
        filters: list[ColumnElement[bool]] = [
            column.in_(list(values)) for column, values in choices if values
        ]
        if after is not None:
            pages.check_place(self._connection, audit.c.id, after)
        if filter.since_ms is not None:
            filters.append(audit.c.at_ms >= filter.since_ms)
        if filter.until_ms is not None:
            filters.append(audit.c.at_ms < filter.until_ms)
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
