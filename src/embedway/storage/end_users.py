"""The records of end users at rest."""

from sqlalchemy import delete, select

from embedway.core.pages import Page
from embedway.core.projects import EndUser
from embedway.storage import pages
from embedway.storage.records import Records
from embedway.storage.tables import end_users


class EndUsers(Records[EndUser]):
    """The records of end users, in one transaction."""

    table = end_users
    type = EndUser

    def get(self, project_id: str, id: str) -> EndUser | None:
        """Return the record of an end user, if there is one."""
        return self.find(end_users.c.project_id == project_id, end_users.c.id == id)

    def remove(self, user: EndUser) -> None:
        """Forget a record, so that the end user is treated like all others of the project."""
        self._connection.execute(
            delete(end_users).where(
                end_users.c.project_id == user.project_id, end_users.c.id == user.id
            )
        )

    def page(self, project_id: str, *, after: str | None, limit: int) -> Page[EndUser]:
        """Return the next records of a project, sorted by id."""
        return pages.read(
            self._connection,
            select(end_users).where(end_users.c.project_id == project_id),
            type=EndUser,
            by=(end_users.c.id,),
            after=after,
            limit=limit,
        )
