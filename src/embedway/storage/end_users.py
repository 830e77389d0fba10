"""The records of end users at rest."""

from sqlalchemy import ColumnElement, Connection, delete, insert, select, update

from embedway.core.pages import Page
from embedway.core.projects import EndUser
from embedway.storage import pages, records
from embedway.storage.tables import end_users


class EndUsers:
    """The records of end users, in one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, user: EndUser) -> None:
        """Stores a new one."""
        self._connection.execute(insert(end_users).values(records.row(user)))

    def get(self, project_id: str, id: str) -> EndUser | None:
        """The record of an end user, if there is one."""
        query = select(end_users).where(*_is(project_id, id))
        row = self._connection.execute(query).mappings().first()
        return records.read(row, EndUser) if row else None

    def replace(self, user: EndUser) -> None:
        """Stores what has become of one."""
        self._connection.execute(
            update(end_users).where(*_is(user.project_id, user.id)).values(records.row(user))
        )

    def remove(self, user: EndUser) -> None:
        """Forgets one: the end user is again as all others of the project."""
        self._connection.execute(delete(end_users).where(*_is(user.project_id, user.id)))

    def page(self, project_id: str, *, after: str | None, limit: int) -> Page[EndUser]:
        """The next of a project's, by their ids."""
        return pages.read(
            self._connection,
            select(end_users).where(end_users.c.project_id == project_id),
            type=EndUser,
            by=(end_users.c.id,),
            after=after,
            limit=limit,
        )


def _is(project_id: str, id: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return end_users.c.project_id == project_id, end_users.c.id == id
