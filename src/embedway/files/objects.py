"""Keeps the content of files in a folder or in an S3-compatible store, as small objects.

Each object is written whole or not at all, and never changed, so a process may end at any moment.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import obstore
import structlog
from obstore.exceptions import BaseError
from obstore.store import LocalStore, S3Store

from embedway.core.errors import FilesUnavailable

RETRIES: "RetryConfig" = {"max_retries": 3, "retry_timeout": timedelta(seconds=15)}
"""How often to try a call to an object store again. The default is to try for three minutes."""

if TYPE_CHECKING:
    from obstore.store import RetryConfig

_log = structlog.get_logger("embedway.files")


class ObjectStore:
    """Objects by path. Coroutines raise `FilesUnavailable` if the store fails."""

    def __init__(self, place: Path | str) -> None:
        """Open a store; the first use shows whether it works.

        Args:
            place: A folder, which is made if it does not exist, or an `s3://bucket/prefix`. The
                usual `AWS_*` variables name its region, endpoint and credentials.
        """
        self._store: LocalStore | S3Store | None = None
        self._place = place

    async def write(self, path: str, content: bytes) -> None:
        """Store an object."""
        with self._explained("written"):
            await obstore.put_async(self._open(), path, content)

    async def read(self, path: str) -> bytes:
        """Return the content of an object."""
        with self._explained("read"):
            found = await obstore.get_async(self._open(), path)
            return bytes(await found.bytes_async())

    async def find(self, folder: str) -> list[str]:
        """Return the paths of all objects in a folder."""
        with self._explained("listed"):
            listed = obstore.list(self._open(), prefix=f"{folder}/")  # pyright: ignore[reportUnknownMemberType]  # partly untyped
            found = await listed.collect_async()
            return [each["path"] for each in found]

    async def delete(self, paths: Sequence[str]) -> None:
        """Delete objects; it is no error if one is gone already."""
        with self._explained("deleted"):
            for path in paths:
                try:
                    await obstore.delete_async(self._open(), path)
                except FileNotFoundError:
                    continue

    def _open(self) -> LocalStore | S3Store:
        if self._store is None:
            if isinstance(self._place, str):
                self._store = S3Store.from_url(
                    self._place, client_options={"allow_http": True}, retry_config=RETRIES
                )
            else:
                self._place.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._store = LocalStore(self._place, automatic_cleanup=True)
        return self._store

    @contextmanager
    def _explained(self, done: str) -> Generator[None]:
        try:
            yield
        except (BaseError, OSError) as error:
            # The rest of the message is the library's view of its own source.
            reason = str(error).partition("\n")[0]
            _log.error("files not usable", place=str(self._place), reason=reason)
            raise FilesUnavailable(f"Files cannot be {done} right now. Try again.") from error
