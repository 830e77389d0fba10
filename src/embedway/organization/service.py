"""Administrative acts on projects, keys and end users.

The one place where they are done, for the admin API and the command line alike. Each is checked,
done and recorded in one transaction, or none of that. Knows neither HTTP nor the terminal.
"""

import secrets
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import msgspec
from sqlalchemy import Engine

from embedway.budgets.status import read_budget_spending
from embedway.core.budget import BudgetSpending
from embedway.core.errors import Forbidden, InvalidRequest, NotFound, quote_text
from embedway.core.keys import USUAL_SCOPES, Key, Scope
from embedway.core.page import Page
from embedway.core.project import DEFAULT_PROJECT, EndUser, Project
from embedway.core.subject import Subject
from embedway.organization import actors, issuing, key_secret, rules
from embedway.organization.actors import Actor, not_found_error, require_admin
from embedway.organization.audit_event import AuditAction, AuditEvent
from embedway.organization.audit_log import AuditLog
from embedway.organization.audit_store import AuditFilter
from embedway.organization.budget_changes import completed
from embedway.organization.keys import KeyFilter
from embedway.organization.public_fields import public
from embedway.organization.transaction import (
    OrganizationStores,
    read_organization,
    write_organization,
)

Changes = Mapping[str, Any]
"""Fields of a `Project`, `Key` or `EndUser`, with the values they are to have."""

OF_PROJECTS = frozenset(Project.__struct_fields__) - {"id", "created_ms", "archived_ms"}
OF_KEYS = frozenset(
    ("name", "scopes", "expires_ms", "models", "providers", "limits", "budgets")
)  # fmt: skip
OF_END_USERS = frozenset(("blocked", "limits", "budgets"))
"""`blocked` is whether it is."""

_RIGHTS = frozenset(("scopes", "expires_ms", "models", "providers"))

Record = TypeVar("Record", Project, Key, EndUser)


class AdminService:
    """What can be done, each by an `Actor`.

    Each raises `Forbidden` if the actor has no right to it, `NotFound` if what it is about does not
    exist or is not the actor's to see, `InvalidRequest` if a value is not possible, and
    `SQLAlchemyError` if the database fails. Lists are parts: `limit` of them, from that `after` on.
    """

    def __init__(self, database: Engine, *, pepper: bytes, now_ms: Callable[[], int]) -> None:
        self._database = database
        self._pepper = pepper
        self._now_ms = now_ms

    # Projects

    def create_project(self, actor: Actor, changes: Changes, *, unique: bool = False) -> Project:
        """A new project; `changes` has its name at least, which is its alone if `unique`."""
        require_admin(actor)
        id = f"proj_{secrets.token_hex(8)}"
        fields = completed(_only(changes, OF_PROJECTS), None)
        project = rules.check_project(Project(id=id, created_ms=self._now_ms(), **fields))
        with self._changing(actor) as (all, journal):
            if unique:
                _check_name(all, project)
            all.projects.add(project)
            journal.log_created("project.created", project)
        return project

    def projects(
        self, actor: Actor, *, after: str | None, limit: int, archived: bool = False
    ) -> Page[Project]:
        """The projects, oldest first; with the `archived` ones, or without."""
        with self._reading(actor) as all:
            return all.projects.page(after=after, limit=limit, archived=archived)

    def project(self, actor: Actor, id: str) -> Project:
        """The project of this id."""
        with self._reading(actor) as all:
            return _project(all, id)

    def find_project(self, actor: Actor, id_or_name: str) -> Project:
        """The project of this id, or the only one of this name that is not archived."""
        require_admin(actor)
        # An administrator sees all there is, so what is not found does not exist.
        unknown = NotFound(f"There is no project {quote_text(id_or_name)}.", remedy="list projects")
        if not rules.is_visible(id_or_name):
            raise unknown
        with read_organization(self._database) as all:
            if project := all.projects.get(id_or_name):
                return project
            named = all.projects.named(id_or_name)
        if len(named) > 1:
            raise InvalidRequest(
                f"More than one project is called {quote_text(id_or_name)}. Say which by its id.",
                remedy="list projects",
            )
        if not named:
            raise unknown
        return named[0]

    def update_project(
        self, actor: Actor, id: str, changes: Changes, *, unique: bool = False
    ) -> Project:
        """Changes a project that is not archived; a new name is its alone if `unique`."""
        with self._changing(actor, admin=True) as (all, journal):
            before = _active(_project(all, id))
            after = rules.check_project(_changed(before, changes, OF_PROJECTS))
            if unique and after.name != before.name:
                _check_name(all, after)
            if after != before:
                all.projects.replace(after)
                journal.log_updated("project.updated", before, after)
        return after

    def archive_project(self, actor: Actor, id: str) -> Project:
        """Archives a project for good: its keys stop working. Its usage is kept."""
        with self._changing(actor, admin=True) as (all, journal):
            project = _project(all, id)
            if project.id == DEFAULT_PROJECT:
                raise InvalidRequest(
                    "The default project cannot be archived. Revoke its keys instead.",
                    remedy="list keys",
                )
            if project.archived_ms is None:
                project = msgspec.structs.replace(project, archived_ms=self._now_ms())
                all.projects.replace(project)
                journal.log("project.archived", project)
        return project

    # Keys

    def create_key(
        self, actor: Actor, *, project_id: str | None, changes: Changes
    ) -> tuple[str, Key]:
        """A new key of a project, or of none, which is an admin key: its secret, and its record.

        What an administrator makes is bound by nothing but its project; what another key issues
        has no more rights than that one, now and later. Without `scopes` it has the usual ones, as
        far as whoever issues it has them.
        """
        fields = completed(_only(changes, OF_KEYS), None)
        if project_id is None:
            fields.setdefault("scopes", ("admin",))
        with self._changing(actor) as (all, journal):
            issuer = self._issuer(all, actor, project_id)
            if issuer and "scopes" not in fields:
                fields["scopes"] = _usual_scopes(issuer)
            if project_id is not None:
                _active(_project(all, project_id))
            shown_once, key = key_secret.issue_key(
                fields.pop("name"),
                pepper=self._pepper,
                now_ms=journal.at_ms,
                project_id=project_id,
                issued_by=issuer.id if issuer else None,
                **fields,
            )
            if key.expires_ms is not None and key.expires_ms <= journal.at_ms:
                raise InvalidRequest(
                    f"'expires_at' is {key.expires_ms // 1000}, which is in the past: the key "
                    "would never work. Choose a later time, or leave it out.",
                    param="expires_at",
                )
            if issuer:
                issuing.check_issuable(key, issuer)
            all.keys.add(rules.check_key(key))
            journal.log_created("api_key.created", key)
        return shown_once, key

    def keys(
        self,
        actor: Actor,
        *,
        project_id: str | None,
        after: str | None,
        limit: int,
        revoked: bool = False,
        descending: bool = False,
    ) -> Page[Key]:
        """The keys of a project, or the admin keys, oldest first unless `descending`.

        Whoever is no administrator sees those that it issued.
        """
        with read_organization(self._database) as all:
            issuer = self._issuer(all, actor, project_id)
            if project_id is not None:
                _project(all, project_id)
            return all.keys.page(
                KeyFilter(
                    project_id=project_id,
                    admin=project_id is None,
                    issued_by=issuer.id if issuer else None,
                ),
                after=after,
                limit=limit,
                revoked=revoked,
                descending=descending,
            )

    def all_keys(self, actor: Actor, *, after: str | None, limit: int) -> Page[Key]:
        """All keys that there are or were, oldest first."""
        with self._reading(actor) as all:
            return all.keys.page(KeyFilter(), after=after, limit=limit)

    def key(self, actor: Actor, id: str, *, project_id: str | None) -> Key:
        """A key of a project, or an admin key, in whatever state it is."""
        with read_organization(self._database) as all:
            return self._key(all, actor, id, project_id)

    def find_key(self, actor: Actor, id: str) -> Key:
        """A key, whosever it is."""
        with self._reading(actor) as all:
            key = all.keys.get(id) if rules.is_id(id) else None
        if key is None:
            raise NotFound(f"There is no key {quote_text(id)}.", remedy="list keys")
        return key

    def update_key(self, actor: Actor, id: str, *, project_id: str | None, changes: Changes) -> Key:
        """Changes a key that works; one that was issued stays within what its issuer has."""
        with self._changing(actor, admin=True) as (all, journal):
            before = _working(self._key(all, actor, id, project_id), journal.at_ms)
            after = rules.check_key(_changed(before, changes, OF_KEYS))
            if after.issued_by and not _RIGHTS.isdisjoint(changes):
                issuer = all.keys.get(after.issued_by)
                if issuer is None:
                    raise not_found_error("key", after.issued_by)
                issuing.check_issuable(after, issuer)
            if after != before:
                all.keys.replace(after)
                journal.log_updated("api_key.updated", before, after)
        return after

    def rotate_key(
        self, actor: Actor, id: str, *, project_id: str | None, grace_ms: int
    ) -> tuple[str, Key]:
        """Gives a key that works a new secret; the old one works for `grace_ms` more.

        Everything else stays, and so does what was used of its limits and budgets.
        """
        with self._changing(actor) as (all, journal):
            key = _working(self._key(all, actor, id, project_id), journal.at_ms)
            shown_once, rotated = key_secret.rotate_key(
                key, pepper=self._pepper, now_ms=journal.at_ms, grace_ms=grace_ms
            )
            all.keys.replace(rotated)
            ends = public({"previous_expires_ms": rotated.previous_expires_ms})
            journal.log("api_key.rotated", rotated, ends)
        return shown_once, rotated

    def revoke_key(self, actor: Actor, id: str, *, project_id: str | None) -> Key:
        """Revokes a key for good; what it issued stops working with it."""
        with self._changing(actor) as (all, journal):
            key = self._key(all, actor, id, project_id)
            if key.revoked_ms is not None:
                raise NotFound(f"Key {quote_text(id)} is already revoked.", remedy="list keys")
            key = msgspec.structs.replace(key, revoked_ms=journal.at_ms)
            all.keys.replace(key)
            journal.log("api_key.deleted", key)
        return key

    # End users

    def end_users(
        self, actor: Actor, project_id: str, *, after: str | None, limit: int
    ) -> Page[EndUser]:
        """The end users of a project that have a record, by their ids."""
        with self._reading(actor) as all:
            _project(all, project_id)
            return all.end_users.page(project_id, after=after, limit=limit)

    def end_user(self, actor: Actor, project_id: str, id: str) -> EndUser:
        """The record of an end user; of one without, what it would be if it were made."""
        with self._reading(actor) as all:
            _project(all, project_id)
            found = all.end_users.get(project_id, rules.check_end_user_id(id))
        return found or EndUser(project_id=project_id, id=id, created_ms=None)

    def set_end_user(self, actor: Actor, project_id: str, id: str, changes: Changes) -> EndUser:
        """Changes the record of an end user, and makes it if there is none."""
        require_admin(actor)
        rules.check_end_user_id(id)
        fields = {**_only(changes, OF_END_USERS)}
        with self._changing(actor) as (all, journal):
            _active(_project(all, project_id))
            before = all.end_users.get(project_id, id)
            now = before or EndUser(project_id=project_id, id=id, created_ms=journal.at_ms)
            fields = completed(fields, now)
            if "blocked" in fields:
                since_ms = now.blocked_ms or journal.at_ms
                fields["blocked_ms"] = since_ms if fields.pop("blocked") else None
            after = rules.check_end_user(msgspec.structs.replace(now, **fields))
            if before is None:
                all.end_users.add(after)
                journal.log_created("end_user.created", after)
            elif after != before:
                all.end_users.replace(after)
                journal.log_updated("end_user.updated", before, after)
        return after

    def remove_end_user(self, actor: Actor, project_id: str, id: str) -> EndUser:
        """Removes the record: the end user is as all others of the project. Usage is kept."""
        with self._changing(actor, admin=True) as (all, journal):
            user = _end_user(all, project_id, id)
            all.end_users.remove(user)
            journal.log("end_user.deleted", user)
        return user

    # What was spent, and done

    def budget_spending(self, record: Project | Key | EndUser) -> tuple[BudgetSpending, ...]:
        """What is spent and left of each budget that `record` is under, in its window now.

        Whoever may see the record may see this, so no actor is asked for. An end user without
        budgets of its own is under those that the project has for each.
        """
        if record.budgets == ():
            return ()
        with self._database.connect() as connection:
            budgets = record.budgets
            if isinstance(record, EndUser) and budgets is None:
                budgets = _project(
                    OrganizationStores.of(connection), record.project_id
                ).user_budgets
            return read_budget_spending(
                connection, _subject(record), budgets or (), at_ms=self._now_ms()
            )

    def record_ledger_action(self, actor: Actor, action: AuditAction, details: Changes) -> None:
        """Records what is about to be done to the ledger itself."""
        with self._changing(actor, admin=True) as (_, journal):
            journal.log(action, None, details)

    def audit(
        self, actor: Actor, wanted: AuditFilter, *, after: str | None, limit: int
    ) -> Page[AuditEvent]:
        """The acts that were done, latest first."""
        with self._reading(actor) as all:
            return all.audit.page(wanted, after=after, limit=limit)

    @contextmanager
    def _reading(self, actor: Actor) -> Generator[OrganizationStores]:
        """Everything, for an administrator."""
        require_admin(actor)
        with read_organization(self._database) as all:
            yield all

    @contextmanager
    def _changing(
        self, actor: Actor, *, admin: bool = False
    ) -> Generator[tuple[OrganizationStores, AuditLog]]:
        """Everything and its journal, in one transaction; for an administrator alone if `admin`."""
        if admin:
            require_admin(actor)
        keys = actor.caller.keys if actor.caller else ()
        # What it could make, such as a key, would outlive its grace.
        if any(key.previous_digest == key.digest for key in keys):
            raise Forbidden(
                "This is the old secret of a key that was rotated; it changes nothing. Use the new "
                "one."
            )
        with write_organization(self._database) as all:
            yield all, AuditLog(all, actor, self._now_ms())

    def _issuer(self, all: OrganizationStores, actor: Actor, project_id: str | None) -> Key | None:
        return actors.issuing_key(all, actor, project_id, now_ms=self._now_ms())

    def _key(self, all: OrganizationStores, actor: Actor, id: str, project_id: str | None) -> Key:
        issuer = self._issuer(all, actor, project_id)
        key = all.keys.get(id) if rules.is_id(id) else None
        issued_by = issuer and issuer.id
        if not key or key.project_id != project_id or issued_by not in {None, key.issued_by}:
            raise not_found_error("key", id)
        return key


def _project(all: OrganizationStores, id: str) -> Project:
    project = all.projects.get(id) if rules.is_id(id) else None
    if project is None:
        raise not_found_error("project", id)
    return project


def _active(project: Project) -> Project:
    if project.archived_ms is not None:
        raise InvalidRequest(
            f"Project {quote_text(project.id)} is archived for good. Choose another one.",
            remedy="list projects",
        )
    return project


def _working(key: Key, now_ms: int) -> Key:
    if (state := key.state(now_ms)) != "active":
        raise InvalidRequest(
            f"Key {quote_text(key.id)} is {state} and stays so. Make a new one.",
            remedy="create a key",
        )
    return key


def _check_name(all: OrganizationStores, project: Project) -> None:
    for each in all.projects.named(project.name):
        if each.id != project.id:
            raise InvalidRequest(
                f"A project is called {quote_text(project.name)} already: {each.id}. "
                "Choose another "
                "name.",
                param="name",
            )


def _usual_scopes(issuer: Key) -> tuple[Scope, ...]:
    scopes: tuple[Scope, ...] = tuple(each for each in USUAL_SCOPES if each in issuer.scopes)
    if not scopes:
        raise Forbidden(
            f"'scopes' is missing: without it a new key has {' and '.join(USUAL_SCOPES)} as far as "
            "the key that issues it, and this one has neither. Say which the new key is to have.",
            param="scopes",
        )
    return scopes


def _end_user(all: OrganizationStores, project_id: str, id: str) -> EndUser:
    _project(all, project_id)
    user = all.end_users.get(project_id, rules.check_end_user_id(id))
    if user is None:
        raise NotFound(f"End user {quote_text(id)} has no record, so it is treated as all others.")
    return user


def _subject(record: Project | Key | EndUser) -> Subject:
    match record:
        case Project():
            return Subject(kind="project", id=record.id, project_id=record.id)
        case Key():
            return Subject(kind="key", id=record.id, project_id=record.project_id or "")
        case EndUser():
            return Subject(kind="end user", id=record.id, project_id=record.project_id)


def _only(changes: Changes, allowed: frozenset[str]) -> Changes:
    for each in changes:
        if each not in allowed:
            raise InvalidRequest(f"'{each}' cannot be set. Leave it out.", param=each)
    return changes


def _changed(record: Record, changes: Changes, allowed: frozenset[str]) -> Record:
    return msgspec.structs.replace(record, **completed(_only(changes, allowed), record))
