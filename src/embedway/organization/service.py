"""Performs administrative actions on projects, keys and end users.

The admin API and the command line both use this service. One transaction checks, performs and logs
each action; if any step fails, nothing is stored.
"""

import secrets
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import msgspec
from sqlalchemy import Engine

from embedway.budgets.status import read_budget_spending
from embedway.core.budget import BudgetSpending
from embedway.core.configuration_change import ConfigurationChange
from embedway.core.errors import Forbidden, InvalidRequest, NotFound, quote_text
from embedway.core.keys import USUAL_SCOPES, Key, Scope
from embedway.core.page import Page
from embedway.core.project import DEFAULT_PROJECT, EndUser, Project
from embedway.core.subject import Subject
from embedway.organization import actors, issuing, key_secret, rules
from embedway.organization.actors import Actor, not_found_error, require_admin
from embedway.organization.audit_log import AuditLog
from embedway.organization.audit_store import AuditAction, AuditEvent, AuditFilter
from embedway.organization.budget_changes import complete_budgets
from embedway.organization.public_fields import public
from embedway.organization.transaction import (
    OrganizationStores,
    read_organization,
    write_organization,
)

Changes = Mapping[str, Any]
"""Fields of a `Project`, `Key` or `EndUser` with their new values."""

PROJECT_FIELDS = frozenset(Project.__struct_fields__) - {"id", "created_ms", "archived_ms"}
KEY_FIELDS = frozenset(
    ("name", "scopes", "expires_ms", "models", "providers", "limits", "budgets")
)  # fmt: skip
END_USER_FIELDS = frozenset(("blocked", "limits", "budgets"))
"""The fields of an end user that can be set; `blocked` is a boolean."""

_RIGHT_FIELDS = frozenset(("scopes", "expires_ms", "models", "providers"))
"""The fields that may not exceed those of the issuing key."""

Record = TypeVar("Record", Project, Key, EndUser)


class AdminService:
    """Performs administrative actions for an `Actor`.

    Methods raise `Forbidden` if the actor lacks the right, `NotFound` if the object does not exist
    or the actor may not see it, `InvalidRequest` if a value is invalid, and `SQLAlchemyError` if
    the database fails. Lists come in pages: at most `limit` objects, following the one with the id
    `after`.
    """

    def __init__(self, database: Engine, *, pepper: bytes, now_ms: Callable[[], int]) -> None:
        self._database = database
        self._pepper = pepper
        self._now_ms = now_ms

    # Projects

    def create_project(self, actor: Actor, changes: Changes, *, unique: bool = False) -> Project:
        """Create a project. With `unique`, no other project may have its name."""
        require_admin(actor)
        id = f"proj_{secrets.token_hex(8)}"
        fields = complete_budgets(_check_fields(changes, PROJECT_FIELDS), None)
        project = rules.check_project(Project(id=id, created_ms=self._now_ms(), **fields))
        with self._changing(actor) as (stores, audit_log):
            if unique:
                _check_name_unique(stores, project)
            stores.projects.add(project)
            audit_log.log_created("project.created", project)
        return project

    def list_projects(
        self, actor: Actor, *, after: str | None, limit: int, archived: bool = False
    ) -> Page[Project]:
        """Return projects, oldest first, with or without `archived` ones."""
        with self._reading(actor) as stores:
            return stores.projects.read_page(after=after, limit=limit, archived=archived)

    def get_project(self, actor: Actor, id: str) -> Project:
        """Return the project with this id."""
        with self._reading(actor) as stores:
            return _get_project(stores, id)

    def find_project(self, actor: Actor, id_or_name: str) -> Project:
        """Return the project with this id, or the only unarchived one with this name."""
        require_admin(actor)
        # Only an administrator gets here, so the message may say that there is no such project.
        unknown = NotFound(f"There is no project {quote_text(id_or_name)}.", remedy="list projects")
        if not rules.is_visible(id_or_name):
            raise unknown
        with read_organization(self._database) as stores:
            if project := stores.projects.get(id_or_name):
                return project
            matches = stores.projects.find_by_name(id_or_name)
        if len(matches) > 1:
            raise InvalidRequest(
                f"More than one project is called {quote_text(id_or_name)}. Choose one by its id.",
                remedy="list projects",
            )
        if not matches:
            raise unknown
        return matches[0]

    def update_project(
        self, actor: Actor, id: str, changes: Changes, *, unique: bool = False
    ) -> Project:
        """Change an unarchived project. With `unique`, no other project may have its new name."""
        with self._changing(actor, admin=True) as (stores, audit_log):
            before = _require_unarchived(_get_project(stores, id))
            after = rules.check_project(_apply(before, changes, PROJECT_FIELDS))
            if unique and after.name != before.name:
                _check_name_unique(stores, after)
            if after != before:
                stores.projects.replace(after)
                audit_log.log_updated("project.updated", before, after)
        return after

    def archive_project(self, actor: Actor, id: str) -> Project:
        """Archive a project for good. Its keys stop working; its usage records are kept."""
        with self._changing(actor, admin=True) as (stores, audit_log):
            project = _get_project(stores, id)
            if project.id == DEFAULT_PROJECT:
                raise InvalidRequest(
                    "The default project cannot be archived. Revoke its keys instead.",
                    remedy="list keys",
                )
            if project.archived_ms is None:
                project = msgspec.structs.replace(project, archived_ms=self._now_ms())
                stores.projects.replace(project)
                audit_log.log("project.archived", project)
        return project

    # Keys

    def create_key(
        self, actor: Actor, *, project_id: str | None, changes: Changes
    ) -> tuple[str, Key]:
        """Create a key, an admin key if `project_id` is None, and return its secret and record.

        A key that another key issues never exceeds that key's rights, now or later. Without
        `scopes`, a key has those of the usual scopes that its issuer has.
        """
        fields = complete_budgets(_check_fields(changes, KEY_FIELDS), None)
        if project_id is None:
            fields.setdefault("scopes", ("admin",))
        with self._changing(actor) as (stores, audit_log):
            issuer = self._issuing_key(stores, actor, project_id)
            if issuer and "scopes" not in fields:
                fields["scopes"] = _default_scopes(issuer)
            if project_id is not None:
                _require_unarchived(_get_project(stores, project_id))
            secret, key = key_secret.issue_key(
                fields.pop("name"),
                pepper=self._pepper,
                now_ms=audit_log.at_ms,
                project_id=project_id,
                issued_by=issuer.id if issuer else None,
                **fields,
            )
            if key.expires_ms is not None and key.expires_ms <= audit_log.at_ms:
                raise InvalidRequest(
                    f"'expires_at' is {key.expires_ms // 1000}, which is in the past, so the "
                    "key would never work. Choose a later time, or leave it out.",
                    param="expires_at",
                )
            if issuer:
                issuing.check_issuable(key, issuer)
            stores.keys.add(rules.check_key(key))
            audit_log.log_created("api_key.created", key)
        return secret, key

    def list_keys(
        self,
        actor: Actor,
        *,
        project_id: str | None,
        after: str | None,
        limit: int,
        revoked: bool = False,
        descending: bool = False,
    ) -> Page[Key]:
        """Return the keys of a project, or the admin keys, oldest first unless `descending`.

        An actor who is no administrator sees only the keys it issued.
        """
        with read_organization(self._database) as stores:
            issuer = self._issuing_key(stores, actor, project_id)
            if project_id is not None:
                _get_project(stores, project_id)
            return stores.keys.read_page(
                where={"project_id": project_id} | ({"issued_by": issuer.id} if issuer else {}),
                after=after,
                limit=limit,
                revoked=revoked,
                descending=descending,
            )

    def list_all_keys(self, actor: Actor, *, after: str | None, limit: int) -> Page[Key]:
        """Return all keys, revoked ones included, oldest first."""
        with self._reading(actor) as stores:
            return stores.keys.read_page(where={}, after=after, limit=limit)

    def get_key(self, actor: Actor, id: str, *, project_id: str | None) -> Key:
        """Return a key of a project, or an admin key, in any state."""
        with read_organization(self._database) as stores:
            return self._get_key(stores, actor, id, project_id)

    def find_key(self, actor: Actor, id: str) -> Key:
        """Return the key with this id, whatever its project."""
        with self._reading(actor) as stores:
            key = stores.keys.get(id) if rules.is_id(id) else None
        if key is None:
            raise NotFound(f"There is no key {quote_text(id)}.", remedy="list keys")
        return key

    def update_key(self, actor: Actor, id: str, *, project_id: str | None, changes: Changes) -> Key:
        """Change an active key. An issued key must stay within the rights of its issuer."""
        with self._changing(actor, admin=True) as (stores, audit_log):
            before = _require_active(self._get_key(stores, actor, id, project_id), audit_log.at_ms)
            after = rules.check_key(_apply(before, changes, KEY_FIELDS))
            if after.issued_by and not _RIGHT_FIELDS.isdisjoint(changes):
                issuer = stores.keys.get(after.issued_by)
                if issuer is None:
                    raise not_found_error("key", after.issued_by)
                issuing.check_issuable(after, issuer)
            if after != before:
                stores.keys.replace(after)
                audit_log.log_updated("api_key.updated", before, after)
        return after

    def rotate_key(
        self, actor: Actor, id: str, *, project_id: str | None, grace_ms: int
    ) -> tuple[str, Key]:
        """Give an active key a new secret; the old one works for another `grace_ms`.

        Everything else stays, including what the key has used of its limits and budgets.
        """
        with self._changing(actor) as (stores, audit_log):
            key = _require_active(self._get_key(stores, actor, id, project_id), audit_log.at_ms)
            secret, rotated = key_secret.rotate_key(
                key, pepper=self._pepper, now_ms=audit_log.at_ms, grace_ms=grace_ms
            )
            stores.keys.replace(rotated)
            ends = public({"previous_expires_ms": rotated.previous_expires_ms})
            audit_log.log("api_key.rotated", rotated, ends)
        return secret, rotated

    def revoke_key(self, actor: Actor, id: str, *, project_id: str | None) -> Key:
        """Revoke a key for good. The keys it issued stop working with it."""
        with self._changing(actor) as (stores, audit_log):
            key = self._get_key(stores, actor, id, project_id)
            if key.revoked_ms is not None:
                raise NotFound(f"Key {quote_text(id)} is already revoked.", remedy="list keys")
            key = msgspec.structs.replace(key, revoked_ms=audit_log.at_ms)
            stores.keys.replace(key)
            audit_log.log("api_key.deleted", key)
        return key

    # End users

    def list_end_users(
        self, actor: Actor, project_id: str, *, after: str | None, limit: int
    ) -> Page[EndUser]:
        """Return the end users of a project that have a record, in order of their ids."""
        with self._reading(actor) as stores:
            _get_project(stores, project_id)
            return stores.end_users.read_page(project_id, after=after, limit=limit)

    def get_end_user(self, actor: Actor, project_id: str, id: str) -> EndUser:
        """Return an end user's record; without one, the record that a new end user would have."""
        with self._reading(actor) as stores:
            _get_project(stores, project_id)
            user = stores.end_users.get(project_id, rules.check_end_user_id(id))
        return user or EndUser(project_id=project_id, id=id, created_ms=None)

    def set_end_user(self, actor: Actor, project_id: str, id: str, changes: Changes) -> EndUser:
        """Change an end user's record, or create it if there is none."""
        require_admin(actor)
        rules.check_end_user_id(id)
        fields = {**_check_fields(changes, END_USER_FIELDS)}
        with self._changing(actor) as (stores, audit_log):
            _require_unarchived(_get_project(stores, project_id))
            before = stores.end_users.get(project_id, id)
            now = before or EndUser(project_id=project_id, id=id, created_ms=audit_log.at_ms)
            fields = complete_budgets(fields, now)
            if "blocked" in fields:
                since_ms = now.blocked_ms or audit_log.at_ms
                fields["blocked_ms"] = since_ms if fields.pop("blocked") else None
            after = rules.check_end_user(msgspec.structs.replace(now, **fields))
            if before is None:
                stores.end_users.add(after)
                audit_log.log_created("end_user.created", after)
            elif after != before:
                stores.end_users.replace(after)
                audit_log.log_updated("end_user.updated", before, after)
        return after

    def remove_end_user(self, actor: Actor, project_id: str, id: str) -> EndUser:
        """Remove an end user's record: the project's defaults apply again. Usage is kept."""
        with self._changing(actor, admin=True) as (stores, audit_log):
            _get_project(stores, project_id)
            user = stores.end_users.get(project_id, rules.check_end_user_id(id))
            if user is None:
                raise NotFound(
                    f"End user {quote_text(id)} has no record, so the project's defaults apply."
                )
            stores.end_users.remove(user)
            audit_log.log("end_user.deleted", user)
        return user

    # Spending and the audit log

    def get_budget_spending(self, record: Project | Key | EndUser) -> tuple[BudgetSpending, ...]:
        """Return what is spent and left of each budget of `record`, in its current window.

        Takes no actor: a caller that has the record may see its spending. End users without budgets
        of their own have the `user_budgets` of their project.
        """
        if record.budgets == ():
            return ()
        with self._database.connect() as connection:
            budgets = record.budgets
            if isinstance(record, EndUser) and budgets is None:
                project = _get_project(OrganizationStores(connection), record.project_id)
                budgets = project.user_budgets
            return read_budget_spending(
                connection, _subject(record), budgets or (), at_ms=self._now_ms()
            )

    def record_ledger_action(self, actor: Actor, action: AuditAction, details: Changes) -> None:
        """Log an action on the ledger before it is performed."""
        with self._changing(actor, admin=True) as (_, audit_log):
            audit_log.log(action, None, details)

    def record_reload(self, actor: Actor, changes: Sequence[ConfigurationChange]) -> None:
        """Log a reload of the configuration before it takes effect."""
        with self._changing(actor, admin=True) as (_, audit_log):
            details = {"changes": [msgspec.structs.asdict(each) for each in changes]}
            audit_log.log("configuration.reloaded", None, details)

    def list_audit_events(
        self, actor: Actor, filter: AuditFilter, *, after: str | None, limit: int
    ) -> Page[AuditEvent]:
        """Return audit events, latest first."""
        with self._reading(actor) as stores:
            return stores.audit.read_page(filter, after=after, limit=limit)

    @contextmanager
    def _reading(self, actor: Actor) -> Generator[OrganizationStores]:
        """Open the stores to read, for an administrator."""
        require_admin(actor)
        with read_organization(self._database) as stores:
            yield stores

    @contextmanager
    def _changing(
        self, actor: Actor, *, admin: bool = False
    ) -> Generator[tuple[OrganizationStores, AuditLog]]:
        """Open the stores and the audit log in one transaction; `admin` is for administrators."""
        if admin:
            require_admin(actor)
        keys = actor.caller.keys if actor.caller else ()
        # A key created with an old secret would outlive the secret's grace period.
        if any(key.previous_digest == key.digest for key in keys):
            raise Forbidden(
                "This is the old secret of a rotated key. It may not change anything. Use the new "
                "one."
            )
        with write_organization(self._database) as stores:
            yield stores, AuditLog(stores, actor, self._now_ms())

    def _issuing_key(
        self, stores: OrganizationStores, actor: Actor, project_id: str | None
    ) -> Key | None:
        return actors.find_issuing_key(stores, actor, project_id, now_ms=self._now_ms())

    def _get_key(
        self, stores: OrganizationStores, actor: Actor, id: str, project_id: str | None
    ) -> Key:
        issuer = self._issuing_key(stores, actor, project_id)
        key = stores.keys.get(id) if rules.is_id(id) else None
        issued_by = issuer and issuer.id
        if not key or key.project_id != project_id or issued_by not in {None, key.issued_by}:
            raise not_found_error("key", id)
        return key


def _get_project(stores: OrganizationStores, id: str) -> Project:
    project = stores.projects.get(id) if rules.is_id(id) else None
    if project is None:
        raise not_found_error("project", id)
    return project


def _require_unarchived(project: Project) -> Project:
    if project.archived_ms is not None:
        raise InvalidRequest(
            f"Project {quote_text(project.id)} is archived for good. Choose another one.",
            remedy="list projects",
        )
    return project


def _require_active(key: Key, now_ms: int) -> Key:
    if (state := key.state(now_ms)) != "active":
        raise InvalidRequest(
            f"Key {quote_text(key.id)} is {state} and cannot be reactivated. Create a new one.",
            remedy="create a key",
        )
    return key


def _check_name_unique(stores: OrganizationStores, project: Project) -> None:
    for each in stores.projects.find_by_name(project.name):
        if each.id != project.id:
            raise InvalidRequest(
                f"Project {each.id} is already called {quote_text(project.name)}. Choose another "
                "name.",
                param="name",
            )


def _default_scopes(issuer: Key) -> tuple[Scope, ...]:
    scopes: tuple[Scope, ...] = tuple(each for each in USUAL_SCOPES if each in issuer.scopes)
    if not scopes:
        raise Forbidden(
            f"'scopes' is missing. By default a new key has {' and '.join(USUAL_SCOPES)}, but the "
            "key that issues it has neither. Send the scopes of the new key.",
            param="scopes",
        )
    return scopes


def _subject(record: Project | Key | EndUser) -> Subject:
    match record:
        case Project():
            return Subject(kind="project", id=record.id, project_id=record.id)
        case Key():
            return Subject(kind="key", id=record.id, project_id=record.project_id or "")
        case EndUser():
            return Subject(kind="end user", id=record.id, project_id=record.project_id)


def _check_fields(changes: Changes, allowed: frozenset[str]) -> Changes:
    for each in changes:
        if each not in allowed:
            raise InvalidRequest(f"'{each}' cannot be set. Leave it out.", param=each)
    return changes


def _apply(record: Record, changes: Changes, allowed: frozenset[str]) -> Record:
    return msgspec.structs.replace(
        record, **complete_budgets(_check_fields(changes, allowed), record)
    )
