"""Stores projects."""

from collections.abc import Sequence

from sqlalchemy import select

from embedway.core.page import Page
from embedway.core.project import Project
from embedway.storage import pages, records
from embedway.storage.tables import projects


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
