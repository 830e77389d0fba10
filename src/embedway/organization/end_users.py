"""The records of end users at rest."""

from sqlalchemy import select

from embedway.core.page import Page
from embedway.core.project import EndUser
from embedway.storage import pages
from embedway.storage.records import Records
from embedway.storage.tables import end_users


class EndUserStore(Records[EndUser]):
    """The records of end users, in one transaction."""

    table = end_users
    type = EndUser

    def page(self, project_id: str, *, after: str | None, limit: int) -> Page[EndUser]:
        """The next end users of a project, by their ids."""
        return pages.read_page(
            self._connection,
            select(end_users).where(end_users.c.project_id == project_id),
            type=EndUser,
            by=(end_users.c.id,),
            after=after,
            limit=limit,
        )
