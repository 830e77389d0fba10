"""Opens the stores of projects, keys, end users and audit events in one transaction."""

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
    """The stores of one transaction."""

    projects: ProjectStore
    keys: KeyStore
    end_users: EndUserStore
    audit: AuditStore

    @classmethod
    def of(cls, connection: Connection) -> Self:
        """Return the stores that use `connection`."""
        return cls(
            ProjectStore(connection),
            KeyStore(connection),
            EndUserStore(connection),
            AuditStore(connection),
        )


@contextmanager
def write_organization(engine: Engine) -> Generator[OrganizationStores]:
    """Open the stores to write. Writers take turns; an error undoes all changes.

    Raises:
        SQLAlchemyError: The database cannot be reached.
    """
    with locked_transaction(engine, lock=LOCK) as connection:
        yield OrganizationStores.of(connection)


@contextmanager
def read_organization(engine: Engine) -> Generator[OrganizationStores]:
    """Open the stores to read.

    Raises:
        SQLAlchemyError: The database cannot be reached.
    """
    with engine.connect() as connection:
        yield OrganizationStores.of(connection)
