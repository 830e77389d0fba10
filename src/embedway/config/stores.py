"""Opens the store that the settings name."""

from pathlib import Path

from pydantic import SecretStr

from embedway.config.settings import Settings
from embedway.storage.store import SQLITE_FILE, Store, open_store


def open_configured_store(settings: Settings, *, create: bool) -> Store:
    """Open the store; with `create`, create it if it does not exist.

    Raises:
        DatabaseMissing: The database does not exist, and `create` is false.
        DatabaseError: It cannot be created or opened, or its keys were made with another pepper.
    """
    return open_store(
        settings.data_dir,
        database_url=reveal(settings.database_url),
        pepper=reveal(settings.pepper),
        create=create,
        durability=settings.durability,
    )


def database_of(settings: Settings) -> Path | str:
    """Return the file or the URL of the database."""
    return reveal(settings.database_url) or settings.data_dir / SQLITE_FILE


def reveal(secret: SecretStr | None) -> str | None:
    """Return the value of a secret setting. Never show it."""
    return secret.get_secret_value() if secret else None
