"""Stores the records of end users."""

from sqlalchemy import select

from embedway.core.page import Page
from embedway.core.project import EndUser
from embedway.storage import pages
from embedway.storage.records import Records
from embedway.storage.tables import end_users


class EndUserStore(Records[EndUser]):
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
