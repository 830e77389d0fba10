"""Administers projects, keys and end users, and reports usage and cost.

Most of these operations need an admin key; a key with the scope `keys` or `usage` may do a part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from embedway_sdk.client import Call, Client, Resource, asynchronous, blocking
from embedway_sdk.loading import reader
from embedway_sdk.pages import Page, page_call
from embedway_sdk.types import (
    AdminApiKey,
    AdminApiKeyWithSecret,
    ApiKey,
    ApiKeyWithSecret,
    AuditEvent,
    CostsResult,
    DeletionReceipt,
    EndUser,
    EndUserFields,
    Expiry,
    KeyChanges,
    KeyFields,
    Project,
    ProjectChanges,
    ProjectFields,
    RefusalsQuery,
    RefusalsResult,
    UsageBucket,
    UsageQuery,
    UsageResult,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack

ROOT = "/v1/organization"


def _path(*parts: str) -> str:
    for part in parts:
        if part in {"", ".", ".."}:  # addresses drop these, so another path would be asked
            raise ValueError(f"{part!r} is not an id.")
    return "/".join([ROOT, *(quote(part, safe="") for part in parts)])


def _unix(moment: int | datetime) -> int:
    return int(moment.timestamp()) if isinstance(moment, datetime) else moment


class Projects(Resource):
    """Teams or customers: each has keys, limits, budgets and usage of its own."""

    def __init__(self, client: Client) -> None:
        super().__init__(client)
        self.api_keys = ApiKeys(client)
        self.end_users = EndUsers(client)

    def _list(
        self,
        *,
        limit: int | None = None,
        after: str | None = None,
        include_archived: bool | None = None,
    ) -> Call[Page[Project]]:
        """List projects, oldest first; iterate over the result to get all pages."""
        query = {"limit": limit, "after": after, "include_archived": include_archived}
        return page_call(self._client, Project, _path("projects"), query, cursor="after")

    def _create(self, *, name: str, **fields: Unpack[ProjectFields]) -> Call[Project]:
        """Make a project."""
        return Call("POST", _path("projects"), reader(Project), body={"name": name, **fields})

    def _get(self, project_id: str) -> Call[Project]:
        """Get one project."""
        return Call("GET", _path("projects", project_id), reader(Project), is_safe=True)

    def _update(self, project_id: str, **changes: Unpack[ProjectChanges]) -> Call[Project]:
        """Change a project; what is left out stays as it is."""
        return Call("POST", _path("projects", project_id), reader(Project), body=dict(changes))

    def _archive(self, project_id: str) -> Call[Project]:
        """Archive a project for good: its keys stop working, and its usage is kept."""
        return Call("POST", _path("projects", project_id, "archive"), reader(Project))

    list, list_async = blocking(_list), asynchronous(_list)
    create, create_async = blocking(_create), asynchronous(_create)
    get, get_async = blocking(_get), asynchronous(_get)
    update, update_async = blocking(_update), asynchronous(_update)
    archive, archive_async = blocking(_archive), asynchronous(_archive)


class ApiKeys(Resource):
    """The keys of a project."""

    def _list(
        self,
        project_id: str,
        *,
        limit: int | None = None,
        after: str | None = None,
        include_revoked: bool | None = None,
    ) -> Call[Page[ApiKey]]:
        """List the keys of a project; iterate over the result to get all pages."""
        query = {"limit": limit, "after": after, "include_revoked": include_revoked}
        path = _path("projects", project_id, "api_keys")
        return page_call(self._client, ApiKey, path, query, cursor="after")

    def _create(
        self, project_id: str, *, name: str, **fields: Unpack[KeyFields]
    ) -> Call[ApiKeyWithSecret]:
        """Make a key. Its secret, `value`, is shown this once."""
        path = _path("projects", project_id, "api_keys")
        return Call("POST", path, reader(ApiKeyWithSecret), body={"name": name, **fields})

    def _get(self, project_id: str, key_id: str) -> Call[ApiKey]:
        """Get one key."""
        path = _path("projects", project_id, "api_keys", key_id)
        return Call("GET", path, reader(ApiKey), is_safe=True)

    def _update(self, project_id: str, key_id: str, **changes: Unpack[KeyChanges]) -> Call[ApiKey]:
        """Change a key; what is left out stays as it is."""
        path = _path("projects", project_id, "api_keys", key_id)
        return Call("POST", path, reader(ApiKey), body=dict(changes))

    def _delete(self, project_id: str, key_id: str) -> Call[DeletionReceipt]:
        """Revoke a key, and the keys that it issued."""
        path = _path("projects", project_id, "api_keys", key_id)
        return Call("DELETE", path, reader(DeletionReceipt))

    def _rotate(
        self, project_id: str, key_id: str, *, grace_seconds: int | None = None
    ) -> Call[ApiKeyWithSecret]:
        """Give a key a new secret; the old one works on for `grace_seconds`, by default a day."""
        path = _path("projects", project_id, "api_keys", key_id, "rotate")
        return Call("POST", path, reader(ApiKeyWithSecret), body=_grace(grace_seconds))

    list, list_async = blocking(_list), asynchronous(_list)
    create, create_async = blocking(_create), asynchronous(_create)
    get, get_async = blocking(_get), asynchronous(_get)
    update, update_async = blocking(_update), asynchronous(_update)
    delete, delete_async = blocking(_delete), asynchronous(_delete)
    rotate, rotate_async = blocking(_rotate), asynchronous(_rotate)


class EndUsers(Resource):
    """The end users of a project: those that `on_behalf_of` and `user` name."""

    def _list(
        self,
        project_id: str,
        *,
        limit: int | None = None,
        after: str | None = None,
        id: str | None = None,
    ) -> Call[Page[EndUser]]:
        """List the end users of a project; iterate over the result to get all pages."""
        query = {"limit": limit, "after": after, "id": id}
        path = _path("projects", project_id, "end_users")
        return page_call(self._client, EndUser, path, query, cursor="after")

    def _set(self, project_id: str, *, id: str, **fields: Unpack[EndUserFields]) -> Call[EndUser]:
        """Set what an end user may do, whether or not it was seen before."""
        path = _path("projects", project_id, "end_users")
        return Call("POST", path, reader(EndUser), body={"id": id, **fields})

    def _get(self, project_id: str, end_user_id: str) -> Call[EndUser]:
        """Get one end user."""
        path = _path("projects", project_id, "end_users", end_user_id)
        return Call("GET", path, reader(EndUser), is_safe=True)

    def _update(
        self, project_id: str, end_user_id: str, **changes: Unpack[EndUserFields]
    ) -> Call[EndUser]:
        """Change what an end user may do; what is left out stays as it is."""
        path = _path("projects", project_id, "end_users", end_user_id)
        return Call("POST", path, reader(EndUser), body=dict(changes))

    def _delete(self, project_id: str, end_user_id: str) -> Call[DeletionReceipt]:
        """Forget what was set for an end user, who then has the project's limits for each."""
        path = _path("projects", project_id, "end_users", end_user_id)
        return Call("DELETE", path, reader(DeletionReceipt))

    list, list_async = blocking(_list), asynchronous(_list)
    set, set_async = blocking(_set), asynchronous(_set)
    get, get_async = blocking(_get), asynchronous(_get)
    update, update_async = blocking(_update), asynchronous(_update)
    delete, delete_async = blocking(_delete), asynchronous(_delete)


class AdminApiKeys(Resource):
    """The keys for the organisation's administration."""

    def _list(
        self,
        *,
        limit: int | None = None,
        after: str | None = None,
        order: Literal["asc", "desc"] | None = None,
        include_revoked: bool | None = None,
    ) -> Call[Page[AdminApiKey]]:
        """List admin keys; iterate over the result to get all pages."""
        query = {
            "limit": limit, "after": after, "order": order, "include_revoked": include_revoked
        }  # fmt: skip
        return page_call(self._client, AdminApiKey, _path("admin_api_keys"), query, cursor="after")

    def _create(self, *, name: str, **expiry: Unpack[Expiry]) -> Call[AdminApiKeyWithSecret]:
        """Make an admin key. Its secret, `value`, is shown this once."""
        path = _path("admin_api_keys")
        return Call("POST", path, reader(AdminApiKeyWithSecret), body={"name": name, **expiry})

    def _get(self, key_id: str) -> Call[AdminApiKey]:
        """Get one admin key."""
        return Call("GET", _path("admin_api_keys", key_id), reader(AdminApiKey), is_safe=True)

    def _delete(self, key_id: str) -> Call[DeletionReceipt]:
        """Revoke an admin key."""
        return Call("DELETE", _path("admin_api_keys", key_id), reader(DeletionReceipt))

    def _rotate(
        self, key_id: str, *, grace_seconds: int | None = None
    ) -> Call[AdminApiKeyWithSecret]:
        """Give a key a new secret; the old one works on for `grace_seconds`, by default a day."""
        path = _path("admin_api_keys", key_id, "rotate")
        return Call("POST", path, reader(AdminApiKeyWithSecret), body=_grace(grace_seconds))

    list, list_async = blocking(_list), asynchronous(_list)
    create, create_async = blocking(_create), asynchronous(_create)
    get, get_async = blocking(_get), asynchronous(_get)
    delete, delete_async = blocking(_delete), asynchronous(_delete)
    rotate, rotate_async = blocking(_rotate), asynchronous(_rotate)


def _grace(grace_seconds: int | None) -> dict[str, int]:
    return {} if grace_seconds is None else {"grace_seconds": grace_seconds}


class AuditLogs(Resource):
    """Who changed what."""

    def _list(
        self,
        *,
        limit: int | None = None,
        after: str | None = None,
        event_types: Sequence[str] | None = None,
        project_ids: Sequence[str] | None = None,
        actor_ids: Sequence[str] | None = None,
        resource_ids: Sequence[str] | None = None,
        since: int | datetime | None = None,
        until: int | datetime | None = None,
    ) -> Call[Page[AuditEvent]]:
        """List changes, newest first; iterate over the result to get all pages.

        `since` is included and `until` is not; both are Unix seconds or a datetime.
        """
        query: dict[str, Any] = {
            "limit": limit,
            "after": after,
            "event_types[]": event_types,
            "project_ids[]": project_ids,
            "actor_ids[]": actor_ids,
            "resource_ids[]": resource_ids,
            "effective_at[gte]": None if since is None else _unix(since),
            "effective_at[lt]": None if until is None else _unix(until),
        }
        return page_call(self._client, AuditEvent, _path("audit_logs"), query, cursor="after")

    list, list_async = blocking(_list), asynchronous(_list)


class UsageReports(Resource):
    """What was used, what it cost, and what was refused, in buckets of time."""

    def _embeddings(
        self, *, start_time: int | datetime, **query: Unpack[UsageQuery]
    ) -> Call[Page[UsageBucket[UsageResult]]]:
        """Sum up requests, items and tokens; iterate over the result to get all buckets."""
        path = _path("usage", "embeddings")
        kind = UsageBucket[UsageResult]
        return page_call(self._client, kind, path, _usage_query(start_time, query), cursor="page")

    def _costs(
        self,
        *,
        start_time: int | datetime,
        line_items: Sequence[str] | None = None,
        **query: Unpack[UsageQuery],
    ) -> Call[Page[UsageBucket[CostsResult]]]:
        """Sum up cost; iterate over the result to get all buckets."""
        kind, sent = UsageBucket[CostsResult], _usage_query(start_time, query)
        sent["line_items"] = line_items
        return page_call(self._client, kind, _path("costs"), sent, cursor="page")

    def _refusals(
        self, *, start_time: int | datetime, **query: Unpack[RefusalsQuery]
    ) -> Call[Page[UsageBucket[RefusalsResult]]]:
        """Count refused requests; iterate over the result to get all buckets."""
        path = _path("usage", "refusals")
        kind = UsageBucket[RefusalsResult]
        return page_call(self._client, kind, path, _usage_query(start_time, query), cursor="page")

    embeddings, embeddings_async = blocking(_embeddings), asynchronous(_embeddings)
    costs, costs_async = blocking(_costs), asynchronous(_costs)
    refusals, refusals_async = blocking(_refusals), asynchronous(_refusals)


def _usage_query(start_time: int | datetime, query: Mapping[str, Any]) -> dict[str, Any]:
    metadata: Mapping[str, str] = query.get("metadata", {})
    sent = {name: value for name, value in query.items() if name != "metadata"}
    sent |= {f"metadata.{name}": value for name, value in metadata.items()}
    sent["start_time"] = _unix(start_time)
    if "end_time" in sent:
        sent["end_time"] = _unix(sent["end_time"])
    return sent


class Organization(Resource):
    """Everything that an administrator does."""

    def __init__(self, client: Client) -> None:
        super().__init__(client)
        self.projects = Projects(client)
        self.admin_api_keys = AdminApiKeys(client)
        self.audit_logs = AuditLogs(client)
        self.usage = UsageReports(client)
