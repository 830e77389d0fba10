"""Projects, keys, end users and the record of what was done to them, in one transaction."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Self

import msgspec
from sqlalchemy import Connection, Engine

from embedway.organization.audit_store import LOCK, AuditStore
from embedway.organization.end_users import EndUserStore
from embedway.organization.keys import KeyStore
from embedway.organization.projects import ProjectStore
from embedway.storage.database import locked_transaction


class OrganizationStores(msgspec.Struct, frozen=True):
    """All of it, as of one transaction."""

    projects: ProjectStore
    keys: KeyStore
    end_users: EndUserStore
    audit: AuditStore

    @classmethod
    def of(cls, connection: Connection) -> Self:
        """As of the transaction of `connection`."""
        return cls(
            ProjectStore(connection),
            KeyStore(connection),
            EndUserStore(connection),
            AuditStore(connection),
        )


@contextmanager
def write_organization(engine: Engine) -> Generator[OrganizationStores]:
    """Nobody else changes it meanwhile; all of what is changed is stored, or on an error nothing.

    Raises:
        SQLAlchemyError: The database cannot be reached.
    """
    with locked_transaction(engine, lock=LOCK) as connection:
        yield OrganizationStores.of(connection)


@contextmanager
def read_organization(engine: Engine) -> Generator[OrganizationStores]:
    """To read it.

    Raises:
        SQLAlchemyError: The database cannot be reached.
    """
    with engine.connect() as connection:
        yield OrganizationStores.of(connection)
