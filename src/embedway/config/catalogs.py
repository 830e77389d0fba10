"""Which catalog is in use: the packaged one, or a newer one that the operator took.

Owns the file in the data folder. Whatever is wrong with it, there is a catalog: the packaged one.
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
"""Begins the first line of the kept file, so that damage to the rest is noticed."""


class CatalogInUse(msgspec.Struct, frozen=True, kw_only=True):
    """The catalog in use."""

    models: Sequence[Model]
    """Every model of it; the providers of their deployments are kinds."""
    date: date
    file: Path | None = None
    """The file that it is from; None for the packaged one."""
    sha256: str = ""
    """The digest of that file, as it was given when it was taken."""
    problem: str = ""
    """Why the file in the data folder is not in use, and the cure; empty if there is none."""

    @property
    def described(self) -> str:
        """Where it is from and of which day, for people."""
        if self.file is None:
            return f"the one of this release, of {self.date}"
        return f"{self.file}, of {self.date}, sha256 {self.sha256}"


def in_use(settings: Settings) -> CatalogInUse:
    """The catalog in use."""
    file = settings.data_dir / FILE
    packaged = CatalogInUse(models=catalog.read_packaged(), date=catalog.DATE)
    replace = msgspec.structs.replace
    try:
        # One byte more than there can be: a longer file is told from one that just fits.
        with file.open("rb") as opened:
            kept = opened.read(files.MAX_BYTES + len(DIGEST) + 66)
        sha256, models, day = _kept(kept)
    except FileNotFoundError:
        return packaged
    except (OSError, CatalogFileError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or error
        return replace(
            packaged,
            problem=f"The catalog in {file} is not used: {reason}. The one of this release, of "
            f"{packaged.date}, is used in its place. Take it again with `embedway catalog update`, "
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
    """The models of a catalog file, and those that run in this process, which no file has."""
    ids = {model.id for model in models}
    return (
        *models,
        *(each for each in catalog.read_packaged() if each.weights and each.id not in ids),
    )


def take(settings: Settings, content: bytes) -> Path:
    """Keep the catalog file `content`, to be used from the next start on."""
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


def remove(settings: Settings) -> bool:
    """Remove the kept catalog; returns whether there was one."""
    try:
        (settings.data_dir / FILE).unlink()
    except FileNotFoundError:
        return False
    return True


def digest(content: bytes) -> str:
    """The SHA-256 of `content`, as 64 hex digits."""
    return hashlib.sha256(content).hexdigest()


@lru_cache(maxsize=1)  # a command looks several times
def _kept(kept: bytes) -> tuple[str, Sequence[Model], date]:
    """The digest, the models and the day of a kept file."""
    first, _, content = kept.partition(b"\n")
    expected = first.removeprefix(DIGEST).decode(errors="replace")
    if not first.startswith(DIGEST) or digest(content) != expected:
        raise CatalogFileError("it is not as it was taken")
    file: CatalogFile = files.read(content, today=today())
    return expected, file.models, file.day
