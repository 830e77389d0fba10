"""Finds the limits and budgets that a request counts against."""

from collections.abc import Iterator, Sequence

import msgspec

from embedway.concurrency.ttl_cache import TTLCache
from embedway.core.budget import Budget
from embedway.core.errors import Forbidden
from embedway.core.keys import Caller
from embedway.core.limit import Limit
from embedway.core.project import EndUser
from embedway.core.subject import Subject
from embedway.organization.directory import Directory
from embedway.ratelimits.limiter import LimitKey


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """The limits and budgets that one request counts against."""

    limit_keys: tuple[LimitKey, ...] = ()
    budgets: tuple[tuple[Subject, tuple[Budget, ...]], ...] = ()

    @property
    def subjects(self) -> tuple[Subject, ...]:
        """The keys, projects and end users whose budgets these are."""
        return tuple(subject for subject, _ in self.budgets)


UNMETERED = Account()


class AccountFinder:
    """Finds the account of a request: that of its key, its project and its end user."""

    def __init__(self, directory: Directory) -> None:
        self._end_users = TTLCache[tuple[str, str], EndUser | None](
            lambda name: directory.find_end_user(*name)
        )

    async def find(self, caller: Caller, end_user: str | None) -> Account:
        """Return the account of a request of `caller` for `end_user`.

        Raises:
            Forbidden: The end user is blocked.
            StorageUnavailable: The end user cannot be looked up.
        """
        shares = list(_shares(caller))
        if end_user and caller.project:
            share = await self._share(caller, end_user)
            if share:
                shares.append(share)
        if not shares:
            return UNMETERED
        return Account(
            limit_keys=tuple(
                LimitKey(subject=subject, limit=limit)
                for subject, limits, _ in shares
                for limit in limits
            ),
            budgets=tuple((subject, tuple(budgets)) for subject, _, budgets in shares if budgets),
        )

    async def _share(
        self, caller: Caller, end_user: str
    ) -> tuple[Subject, Sequence[Limit], Sequence[Budget]] | None:
        project = caller.project
        if project is None:
            return None
        limits, budgets = project.user_limits, project.user_budgets
        if caller.has_end_users:
            found = await self._end_users.get((project.id, end_user))
            if found and found.blocked_ms is not None:
                raise Forbidden(
                    f"The end user {end_user!r} is blocked in this project. Ask its administrator."
                )
            if found and found.limits is not None:
                limits = found.limits
            if found and found.budgets is not None:
                budgets = found.budgets
        subject = Subject(kind="end user", id=end_user, project_id=project.id)
        return (subject, limits, budgets) if limits or budgets else None


def _shares(caller: Caller) -> Iterator[tuple[Subject, Sequence[Limit], Sequence[Budget]]]:
    project = caller.project
    if project is None:
        return
    for key in caller.keys:
        if key.limits or key.budgets:
            subject = Subject(kind="key", id=key.id, project_id=project.id)
            yield subject, key.limits, key.budgets
    if project.limits or project.budgets:
        subject = Subject(kind="project", id=project.id, project_id=project.id)
        yield subject, project.limits, project.budgets
