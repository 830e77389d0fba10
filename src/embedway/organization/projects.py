"""Stores projects, and the records of their end users."""

from collections.abc import Sequence

from sqlalchemy import select

from embedway.core.page import Page
from embedway.core.project import EndUser, Project
from embedway.storage import pages, records
from embedway.storage.tables import end_users, projects


class ProjectStore(records.Records[Project]):
    """Reads and writes projects in one transaction."""

    table = projects
    type = Project

    def find_by_name(self, name: str) -> Sequence[Project]:
        """Return the projects with this name that are not archived, two at most."""
        query = select(projects).where(projects.c.name == name, projects.c.archived_ms.is_(None))
        rows = self._connection.execute(query.order_by(projects.c.created_ms).limit(2))
        return [records.from_row(row, Project) for row in rows.mappings()]

    def read_page(self, *, after: str | None, limit: int, archived: bool) -> Page[Project]:
        """Return the next projects, oldest first, with or without `archived` ones."""
        return pages.read_page(
            self._connection,
            select(projects),
            *(() if archived else (projects.c.archived_ms.is_(None),)),
            type=Project,
            by=(projects.c.created_ms, projects.c.id),
            after=after,
            limit=limit,
        )


class EndUserStore(records.Records[EndUser]):
    """Reads and writes the records of end users in one transaction."""

    table = end_users
    type = EndUser

    def read_page(self, project_id: str, *, after: str | None, limit: int) -> Page[EndUser]:
        """Return the next end users of a project, in order of their ids."""
        return pages.read_page(
            self._connection,
            select(end_users).where(end_users.c.project_id == project_id),
            type=EndUser,
            by=(end_users.c.id,),
            after=after,
            limit=limit,
        )
