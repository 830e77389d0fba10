"""A folder of arrays: `part-*.npy` with the vectors, and `part-*.jsonl` with a line for each."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from embedway.core.vectors import Vectors
from embedway.corpora.sinks.parts import PartsSink
from embedway.corpora.sinks.registry import SinkTarget
from embedway.corpora.sinks.sink import Point

_DECODER = msgspec.json.Decoder(Point)


class NpySink(PartsSink):
    """Vectors in NumPy's own format, which `numpy.load` maps into memory."""

    suffix = ".npy"

    def __init__(self, target: SinkTarget) -> None:
        """Use the folder of `target`."""
        super().__init__(Path(target.place))

    def write_part(self, path: Path, points: Sequence[Point], vectors: Vectors) -> None:
        """Write the lines, and then the array."""
        lines = b"\n".join(map(msgspec.json.encode, points))
        path.with_suffix(".jsonl").write_bytes(lines + b"\n")
        np.save(path, vectors)

    def read_part(self, path: Path) -> tuple[list[Point], Vectors]:
        """Read the lines, and map the array into memory."""
        lines = path.with_suffix(".jsonl").read_bytes().splitlines()
        return [_DECODER.decode(each) for each in lines], np.load(path, mmap_mode="r")

    def read_row_ids(self, path: Path) -> Sequence[str]:
        """Read the lines."""
        lines = path.with_suffix(".jsonl").read_bytes().splitlines()
        return [_DECODER.decode(each).row_id for each in lines]
