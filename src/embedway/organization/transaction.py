"""Opens the stores of projects, keys, end users and audit events in one transaction."""

from collections.abc import Generator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine

from embedway.organization.audit_store import LOCK, AuditStore
from embedway.organization.keys import KeyStore
from embedway.organization.projects import EndUserStore, ProjectStore
from embedway.storage.database import locked_transaction


class OrganizationStores:
    """The stores of one transaction."""

    def __init__(self, connection: Connection) -> None:
        self.projects = ProjectStore(connection)
        self.keys = KeyStore(connection)
        self.end_users = EndUserStore(connection)
        self.audit = AuditStore(connection)


@contextmanager
def write_organization(engine: Engine) -> Generator[OrganizationStores]:
    """Open the stores to write. Writers take turns; an error undoes all changes.

    Raises:
        SQLAlchemyError: The database cannot be reached.
    """
    with locked_transaction(engine, lock=LOCK) as connection:
        yield OrganizationStores(connection)


@contextmanager
def read_organization(engine: Engine) -> Generator[OrganizationStores]:
    """Open the stores to read.

    Raises:
        SQLAlchemyError: The database cannot be reached.
    """
    with engine.connect() as connection:
        yield OrganizationStores(connection)
