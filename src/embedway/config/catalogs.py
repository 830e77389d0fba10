"""Chooses the catalog to use: the packaged one, or a newer one that the operator installed.

This module owns the file in the data folder. If anything is wrong with it, the packaged catalog is
used.
"""

import hashlib
import os
import tempfile
from collections.abc import Sequence
from datetime import date
from functools import lru_cache
from pathlib import Path

import msgspec

from embedway.catalog import catalog, files
from embedway.catalog.files import CatalogFile, CatalogFileError
from embedway.catalog.model import Model
from embedway.config.settings import Settings
from embedway.core.clock import today

FILE = "catalog.toml"
DIGEST = b"# sha256 of what follows: "
"""The start of the file's first line, whose digest reveals damage to the rest."""


class CatalogInUse(msgspec.Struct, frozen=True, kw_only=True):
    """The catalog in use."""

    models: Sequence[Model]
    """All its models. Their deployments name kinds of providers."""
    date: date
    file: Path | None = None
    """The catalog's file; None for the packaged one."""
    sha256: str = ""
    """The SHA-256 of the file's content; empty for the packaged one."""
    problem: str = ""
    """Why the file in the data folder is not used, and the cure; empty if there is none."""

    @property
    def described(self) -> str:
        """The source and the day of the catalog, for people."""
        if self.file is None:
            return f"the one of this release, of {self.date}"
        return f"{self.file}, of {self.date}, sha256 {self.sha256}"


def catalog_in_use(settings: Settings) -> CatalogInUse:
    """Return the catalog in use."""
    file = settings.data_dir / FILE
    packaged = CatalogInUse(models=catalog.read_packaged(), date=catalog.DATE)
    replace = msgspec.structs.replace
    try:
        # Read one byte more than the limit, to recognise a file that is too long.
        with file.open("rb") as opened:
            kept = opened.read(files.MAX_BYTES + len(DIGEST) + 66)
        sha256, models, day = _parsed(kept)
    except FileNotFoundError:
        return packaged
    except (OSError, CatalogFileError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or error
        return replace(
            packaged,
            problem=f"The catalog in {file} is not used: {reason}. The one of this release, of "
            f"{packaged.date}, is used instead. Install it again with `embedway catalog update`, "
            "or remove it with `embedway catalog reset`.",
        )
    if day < packaged.date:
        return replace(
            packaged,
            problem=f"The catalog in {file} is of {day}, and this release has a newer one, of "
            f"{packaged.date}, which is used. Remove the file with `embedway catalog reset`.",
        )
    return CatalogInUse(models=with_local(models), date=day, file=file, sha256=sha256)


def with_local(models: Sequence[Model]) -> Sequence[Model]:
    """Return the models of a catalog file together with the local models, which no file has."""
    ids = {model.id for model in models}
    return (
        *models,
        *(each for each in catalog.read_packaged() if each.weights and each.id not in ids),
    )


def keep_catalog(settings: Settings, content: bytes) -> Path:
    """Store the catalog file `content`, to use from the next start on."""
    folder = settings.data_dir
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = folder / FILE
    descriptor, written = tempfile.mkstemp(prefix=f"{FILE}.", dir=folder)
    try:
        with open(descriptor, "wb") as opened:  # noqa: PTH123  # a descriptor
            opened.write(DIGEST + digest(content).encode() + b"\n" + content)
            opened.flush()
            os.fsync(opened.fileno())
        Path(written).replace(file)
    except BaseException:
        Path(written).unlink(missing_ok=True)
        raise
    return file


def remove_catalog(settings: Settings) -> bool:
    """Remove the stored catalog; return whether there was one."""
    try:
        (settings.data_dir / FILE).unlink()
    except FileNotFoundError:
        return False
    return True


def digest(content: bytes) -> str:
    """Return the SHA-256 of `content`, as 64 hex digits."""
    return hashlib.sha256(content).hexdigest()


@lru_cache(maxsize=1)  # a command reads it several times
def _parsed(kept: bytes) -> tuple[str, Sequence[Model], date]:
    """Return the digest, the models and the day of a stored catalog."""
    first, _, content = kept.partition(b"\n")
    expected = first.removeprefix(DIGEST).decode(errors="replace")
    if not first.startswith(DIGEST) or digest(content) != expected:
        raise CatalogFileError("it has changed since it was installed")
    file: CatalogFile = files.read_catalog(content, today=today())
    return expected, file.models, file.day
