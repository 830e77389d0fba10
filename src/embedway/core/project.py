"""Defines projects, the tenants of a gateway, and their end users."""

import msgspec

from embedway.core.budget import Budget
from embedway.core.limit import Limit

DEFAULT_PROJECT = "proj_default"
"""The id of the project that every database starts with."""


class Project(msgspec.Struct, frozen=True, kw_only=True):
    """The stored record of one project."""

    id: str
    """The project's id, `proj_...`."""
    name: str
    created_ms: int
    archived_ms: int | None = None
    """When its keys stopped working, in ms since the epoch; None while they work."""
    models: tuple[str, ...] | None = None
    """The model names that its requests may use; None for any."""
    providers: tuple[str, ...] | None = None
    """The providers that may serve them; None for any."""
    eu_native: bool = False
    """Whether every request is treated as if it had `eu_native: true`."""
    zero_data_retention: bool = False
    """Whether every request is treated as if it had `zdr: true`."""
    allow_quantization: bool = True
    """If false, every request is treated as if it had `allow_quantization: false`."""
    limits: tuple[Limit, ...] = ()
    """The rate limits for all its requests together."""
    budgets: tuple[Budget, ...] = ()
    """The budgets for all its requests together."""
    user_limits: tuple[Limit, ...] = ()
    """The rate limits for each of its end users, unless the end user has others."""
    user_budgets: tuple[Budget, ...] = ()
    """The budgets for each of its end users, unless the end user has others."""


class EndUser(msgspec.Struct, frozen=True, kw_only=True):
    """The stored record of an end user who is treated unlike the others of the project."""

    project_id: str
    id: str
    """The end user's id in `X-On-Behalf-Of` or `user`."""
    created_ms: int | None
    """When the record was created, in ms since the epoch; None if there is no record."""
    blocked_ms: int | None = None
    """When the end user was blocked, in ms since the epoch; None if not blocked."""
    limits: tuple[Limit, ...] | None = None
    """The end user's rate limits; None for the project's `user_limits`."""
    budgets: tuple[Budget, ...] | None = None
    """The end user's budgets; None for the project's `user_budgets`."""
