"""A project: the tenant that keys, end users, limits, budgets and usage belong to."""

import msgspec

from embedway.core.budget import Budget
from embedway.core.limit import Limit

DEFAULT_PROJECT = "proj_default"
"""That which is there from the start."""


class Project(msgspec.Struct, frozen=True, kw_only=True):
    """The stored record of one project."""

    id: str
    """`proj_...`"""
    name: str
    created_ms: int
    archived_ms: int | None = None
    """Since when none of its keys works."""
    models: tuple[str, ...] | None = None
    """The only names of models that its requests may use; None for any."""
    providers: tuple[str, ...] | None = None
    """The only providers that may serve them; None for any."""
    eu_native: bool = False
    """Whether all of its requests are served as if they had `eu_native`."""
    zero_data_retention: bool = False
    """Likewise with `zdr`."""
    allow_quantization: bool = True
    """Likewise without it, if false."""
    limits: tuple[Limit, ...] = ()
    """Of all its requests together."""
    budgets: tuple[Budget, ...] = ()
    user_limits: tuple[Limit, ...] = ()
    """Of each of its end users, unless that one has others."""
    user_budgets: tuple[Budget, ...] = ()


class EndUser(msgspec.Struct, frozen=True, kw_only=True):
    """What is stored of an end user who is treated unlike the others of the project."""

    project_id: str
    id: str
    """As in `X-On-Behalf-Of` and `user`."""
    created_ms: int | None
    """None if nothing is stored: this end user is treated like the others."""
    blocked_ms: int | None = None
    """Since when requests for this one are refused."""
    limits: tuple[Limit, ...] | None = None
    """None for those that the project has for each."""
    budgets: tuple[Budget, ...] | None = None
