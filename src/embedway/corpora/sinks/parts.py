"""Keeps points in a folder of files that are written once, each a part of the whole.

A manifest lists the parts that count. It is replaced in one step after each change, so a crash
leaves at most a file that no manifest names, which the next change deletes.
"""

import heapq
from abc import ABC, abstractmethod
from collections.abc import Collection as AnyCollection
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from embedway.core import ids
from embedway.core.vectors import Vectors
from embedway.corpora.sinks.sink import Collection, Hit, Point, SinkError

MANIFEST = "embedway.json"


class PartFile(msgspec.Struct, frozen=True):
    """A file with some points."""

    name: str
    points: int


class Manifest(msgspec.Struct, frozen=True):
    """What a folder holds."""

    collection: Collection
    suffix: str
    """The end of the names of its files."""
    parts: tuple[PartFile, ...] = ()


class PartsSink(ABC):
    """A sink in a folder. A subclass says how the files of a part are written and read."""

    suffix: str
    """The end of the name of a part's file."""

    def __init__(self, folder: Path) -> None:
        """Use a folder, which `create` makes.

        Raises:
            SinkError: The folder holds something else.
        """
        self._folder = folder
        self._manifest: Manifest | None = None
        try:
            if folder.is_dir() and (content := self._read_manifest()):
                self._manifest = msgspec.json.decode(content, type=Manifest)
                if self._manifest.suffix != self.suffix:
                    raise SinkError(
                        f"{str(folder)!r} holds {self._manifest.suffix} files. Name a new folder."
                    )
            elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
                raise SinkError(
                    f"{str(folder)!r} holds other files and no {MANIFEST}. Name a new folder."
                )
        except (OSError, msgspec.MsgspecError) as error:
            raise SinkError(f"{str(folder)!r} cannot be read: {error}.") from None

    @abstractmethod
    def write_part(self, path: Path, points: Sequence[Point], vectors: Vectors) -> None:
        """Write a part's files, of which `path` is written last."""

    @abstractmethod
    def read_part(self, path: Path) -> tuple[list[Point], Vectors]:
        """Read a part."""

    @abstractmethod
    def read_row_ids(self, path: Path) -> Sequence[str]:
        """Read the row ids of a part's points, in order."""

    def read_collection(self) -> Collection | None:
        """Return what the sink holds; None if it holds nothing yet."""
        return self._manifest and self._manifest.collection

    def create(self, collection: Collection) -> None:
        """Make the folder."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._save(Manifest(collection, self.suffix))
        except OSError as error:
            raise SinkError(f"{str(self._folder)!r} cannot be made: {error.strerror}.") from None

    def replace(
        self, points: Sequence[Point], vectors: Vectors, *, known_rows: Sequence[str]
    ) -> None:
        """Write a new part, and the parts anew in which these rows are already."""
        try:
            parts = self._without(frozenset(known_rows)) if known_rows else self._known().parts
            if points:
                parts = (*parts, self._add(points, vectors))
            self._save(Manifest(self._known().collection, self.suffix, parts))
        except OSError as error:
            raise SinkError(
                f"{str(self._folder)!r} cannot be written: {error.strerror}. Free some space, or "
                "correct its permissions."
            ) from None

    def delete(self, row_ids: Sequence[str]) -> None:
        """Write the parts anew in which these rows are."""
        if row_ids:
            none = np.empty((0, self._known().collection.dimensions), np.float32)
            self.replace([], none, known_rows=row_ids)

    def count(self) -> int:
        """Return how many points all parts have."""
        return sum(each.points for each in self._known().parts)

    def search(self, vector: Vectors, *, top: int) -> list[Hit]:
        """Compare with every vector, one part at a time."""
        best: list[Hit] = []
        for part in self._known().parts:
            points, vectors = self.read_part(self._folder / part.name)
            scores = vectors @ vector
            nearest: list[int] = np.argsort(-scores, kind="stable")[:top].tolist()
            hits = [Hit(point=points[at], score=float(scores[at])) for at in nearest]
            best = heapq.nlargest(top, [*best, *hits], key=lambda hit: hit.score)
        return best

    def close(self) -> None:  # noqa: B027  # some subclass may keep files open
        """Do nothing, because no file stays open."""

    def _known(self) -> Manifest:
        if self._manifest is None:
            raise SinkError(f"There is no corpus in {str(self._folder)!r}.")
        return self._manifest

    def _add(self, points: Sequence[Point], vectors: Vectors) -> PartFile:
        name = f"part-{ids.random_bytes(8).hex()}{self.suffix}"
        self.write_part(self._folder / name, points, vectors)
        return PartFile(name, len(points))

    def _without(self, row_ids: AnyCollection[str]) -> tuple[PartFile, ...]:
        """Return the parts without some rows."""
        kept: list[PartFile] = []
        for part in self._known().parts:
            stays = np.array(
                [each not in row_ids for each in self.read_row_ids(self._folder / part.name)]
            )
            if stays.all():
                kept.append(part)
            elif stays.any():
                points, vectors = self.read_part(self._folder / part.name)
                kept.append(self._add([points[at] for at in np.flatnonzero(stays)], vectors[stays]))
        return tuple(kept)

    def _read_manifest(self) -> bytes:
        path = self._folder / MANIFEST
        return path.read_bytes() if path.exists() else b""

    def _save(self, manifest: Manifest) -> None:
        fresh = self._folder / f".{MANIFEST}"
        fresh.write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
        fresh.replace(self._folder / MANIFEST)
        self._manifest = manifest
        named = {each.name.removesuffix(self.suffix) for each in manifest.parts}
        for each in self._folder.glob("part-*"):
            if each.name.partition(".")[0] not in named:
                each.unlink(missing_ok=True)
