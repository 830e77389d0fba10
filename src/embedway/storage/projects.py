"""Projects at rest."""

from collections.abc import Sequence

from sqlalchemy import Connection, insert, select, update

from embedway.core.pages import Page
from embedway.core.projects import Project
from embedway.storage import pages, records
from embedway.storage.tables import projects


class Projects:
    """The projects, in one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, project: Project) -> None:
        """Stores a new one."""
        self._connection.execute(insert(projects).values(records.row(project)))

    def get(self, id: str) -> Project | None:
        """The one with this id, archived or not."""
        row = self._connection.execute(select(projects).where(projects.c.id == id)).mappings()
        found = row.first()
        return records.read(found, Project) if found else None

    def named(self, name: str) -> Sequence[Project]:
        """Those that have this name and are not archived, two at most."""
        query = select(projects).where(projects.c.name == name, projects.c.archived_ms.is_(None))
        rows = self._connection.execute(query.order_by(projects.c.created_ms).limit(2))
        return [records.read(row, Project) for row in rows.mappings()]

    def replace(self, project: Project) -> None:
        """Stores what has become of one."""
        self._connection.execute(
            update(projects).where(projects.c.id == project.id).values(records.row(project))
        )

    def page(self, *, after: str | None, limit: int, archived: bool) -> Page[Project]:
        """The next of them, oldest first; with the `archived` ones, or without."""
        return pages.read(
            self._connection,
            select(projects),
            *(() if archived else (projects.c.archived_ms.is_(None),)),
            type=Project,
            by=(projects.c.created_ms, projects.c.id),
            after=after,
            limit=limit,
        )
