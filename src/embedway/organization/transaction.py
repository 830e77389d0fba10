"""Projects, keys, end users and the record of what was done to them, in one transaction."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Self

import msgspec
from sqlalchemy import Connection, Engine

from embedway.organization.audit_store import LOCK, Audit
from embedway.organization.end_users import EndUsers
from embedway.organization.keys import Keys
from embedway.organization.projects import Projects
from embedway.storage.database import writing


class Organisation(msgspec.Struct, frozen=True):
    """All of it, as of one transaction."""

    projects: Projects
    keys: Keys
    end_users: EndUsers
    audit: Audit

    @classmethod
    def of(cls, connection: Connection) -> Self:
        """As of the transaction of `connection`."""
        return cls(Projects(connection), Keys(connection), EndUsers(connection), Audit(connection))


@contextmanager
def changing(engine: Engine) -> Generator[Organisation]:
    """Nobody else changes it meanwhile; all of what is changed is stored, or on an error nothing.

    Raises:
        SQLAlchemyError: The database cannot be reached.
    """
    with writing(engine, lock=LOCK) as connection:
        yield Organisation.of(connection)


@contextmanager
def reading(engine: Engine) -> Generator[Organisation]:
    """To read it.

    Raises:
        SQLAlchemyError: The database cannot be reached.
    """
    with engine.connect() as connection:
        yield Organisation.of(connection)
