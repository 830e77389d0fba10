"""What is kept, where the settings say: the one way to open it."""

from pathlib import Path

from pydantic import SecretStr

from embedway.config.settings import Settings
from embedway.storage.store import SQLITE_FILE, Store, open_store


def open_configured_store(settings: Settings, *, create: bool) -> Store:
    """Open the store; with `create`, as for a gateway that starts, make one where there is none.

    Raises:
        DatabaseMissing: There is none, and it is not to be created.
        DatabaseError: It cannot be made or opened, or its keys were made with another pepper.
    """
    return open_store(
        settings.data_dir,
        database_url=reveal(settings.database_url),
        pepper=reveal(settings.pepper),
        create=create,
        durability=settings.durability,
    )


def database_of(settings: Settings) -> Path | str:
    """The file or the URL of the database, as `embedway.storage.database` takes them."""
    return reveal(settings.database_url) or settings.data_dir / SQLITE_FILE


def reveal(secret: SecretStr | None) -> str | None:
    """The value of a secret setting, to be handed on and never shown."""
    return secret.get_secret_value() if secret else None
