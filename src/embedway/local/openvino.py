"""Runs a BERT encoder on this machine's CPU with OpenVINO.

Owns precision, threads and the shapes that batches are padded to. Knows nothing about texts,
requests, or what is inside the graph.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from embedway.catalog.model import BertShape
from embedway.local import bert

Precision = Literal["bf16", "f32"]

# OpenVINO prepares kernels and memory for each new shape (5-15 ms) and keeps some, so there must be
# few shapes. AMX multiplies tiles of 16 rows, so 24 ids cost as much as 32.
_LENGTH_STEP = 16
# How many prepared kernels to keep. Returning to an earlier shape costs 1-2 ms with 16 as with
# 5,000, and after 1,500 random batches 256 of them take 45 MB more. (0 means no sharing, and yet
# more memory.)
_KERNELS_KEPT = 16
# Each lane has its own activations, so lanes are bounded. Further threads make the lanes wider.
_MAX_LANES = 4


class OpenVinoEncoder:
    """Turns token ids into unit vectors. Not thread-safe: call it from one thread at a time.

    A batch is split between lanes of one thread each, which never wait for one another. On two
    cores that takes a fifth less CPU time per token than one lane of two threads. A single row
    cannot be split, so all threads work on it together: 200 tokens take 6 ms instead of 12.
    """

    dimensions: int
    """The width of the vectors."""
    max_tokens: int
    """The longest row that the model has positions for."""
    precision: Precision
    """The precision that the model computes in."""

    def __init__(
        self,
        weights: Path,
        *,
        shape: BertShape,
        precision: Literal["auto", "bf16", "f32"],
        threads: int | None,
    ) -> None:
        """Load and compile the model, and run it once to warm it up.

        Args:
            weights: The safetensors file. It must not be written to from now on.
            shape: The facts about the model that the weights do not show.
            precision: The precision, resolved by `resolve_precision`.
            threads: The number of threads; None for one per CPU that this process may use.

        Raises:
            OSError: The weights cannot be read.
            ValueError: The weights are not a float32 BERT, or the CPU lacks the precision.
        """
        self._weights = bert.WeightsFile(weights)
        self.dimensions = bert.dimensions(self._weights)
        self.max_tokens = bert.max_tokens(self._weights)
        self._vocabulary_size = bert.vocabulary_size(self._weights)
        self.precision = resolve_precision(precision)
        graph = bert.build_graph(self._weights, shape=shape)
        threads = threads or _usable_cpus()
        lanes = min(threads, _MAX_LANES)
        self._together = _requests(graph, self.precision, threads=threads, streams=1)
        self._lanes = (
            self._together
            if lanes == 1
            else _requests(graph, self.precision, threads=threads, streams=lanes)
        )
        self.encode([[0]])
        self.encode([[0]] * lanes)
        # By now OpenVINO has its own copy of everything but the word embeddings.
        self._weights.drop_pages()

    def encode(self, batch: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Return new unit vectors, float32 [len(batch), dimensions], in the order of `batch`.

        Memory grows with the padded batch and is kept: about 15 KB a token in bf16, 22 KB in f32.

        Args:
            batch: Rows of ids, special tokens included. Rows of similar length waste the least.

        Raises:
            ValueError: A row is empty, too long for the model, or has an unknown id.
        """
        for row in batch:
            if not 0 < len(row) <= self.max_tokens:
                raise ValueError(
                    f"A row has {len(row)} ids, but this model takes 1 to {self.max_tokens}."
                )
        vectors = np.empty((len(batch), self.dimensions), np.float32)
        requests = self._together if len(batch) == 1 else self._lanes
        shares = list(_shares([len(row) for row in batch], len(requests)))
        inputs = [self._padded([batch[row] for row in share]) for share in shares]
        with ExitStack() as waiting:  # wait for every lane, or the next batch finds it busy
            for request, padded in zip(requests, inputs, strict=False):
                request.start_async(padded)
                waiting.callback(request.wait)
        for request, share in zip(requests, shares, strict=False):
            # Copy, because the next batch reuses this memory.
            vectors[share] = request.get_output_tensor(0).data[: len(share)]
        return vectors

    def round_down(self, rows: int) -> int:
        """Return the largest batch of up to `rows` rows that needs no dummy rows; at least 1."""
        lanes = len(self._lanes)
        if rows < lanes:
            return rows
        lane_rows = rows // lanes
        power = 1 << (lane_rows.bit_length() - 1)
        between = power // 2 * 3
        return lanes * (between if power < between <= lane_rows else power)

    def _padded(self, rows: Sequence[Sequence[int]]) -> list[NDArray[np.int32]]:
        """Return the graph's inputs. Dummy rows have one id, because an empty row has no mean."""
        shape = padded_shape(len(rows), max(len(row) for row in rows))
        ids = np.zeros(shape, np.int32)
        lengths = np.ones(shape[0], np.int32)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = row
            lengths[index] = len(row)
        # OpenVINO does not refuse unknown ids: it would return the vector of another text.
        if ids.min() < 0 or ids.max() >= self._vocabulary_size:
            raise ValueError(f"A token id is not in 0 to {self._vocabulary_size - 1}.")
        return [ids, lengths]


def resolve_precision(precision: Literal["auto", "bf16", "f32"]) -> Precision:
    """Return the precision to compute in; `auto` is the fastest that the CPU has natively.

    Raises:
        ValueError: The precision is `bf16`, and the CPU has none.
    """
    # OpenVINO lists BF16 if the CPU has AMX, AVX512_BF16 or AVX-NE-CONVERT. On other CPUs it would
    # emulate bf16, which is slower, or silently compute in f32.
    capabilities: list[str] = ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    native = "BF16" in capabilities
    if precision == "bf16" and not native:
        raise ValueError("This CPU has no instructions for 'bf16'; use 'f32' or 'auto'.")
    if precision == "auto":
        return "bf16" if native else "f32"
    return precision


def padded_shape(rows: int, length: int) -> tuple[int, int]:
    """Return the rows and the length that a batch is padded to.

    Rows are rounded up to 1, 2, 3, 4, 6, 8, 12, 16, 24 and so on. With powers of two alone, a
    quarter of a batch of random size is padding, and it takes up to a fifth longer.
    """
    power = 1 << (rows - 1).bit_length()
    between = power // 4 * 3
    return (between if rows <= between else power), -(-length // _LENGTH_STEP) * _LENGTH_STEP


def _shares(lengths: Sequence[int], lanes: int) -> Iterator[list[int]]:
    """Split the positions of `lengths` into up to `lanes` shares of about as many padded tokens.

    The longest rows come first, so the rows of a share have similar lengths.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)
    widths = [padded_shape(1, lengths[row])[1] for row in order]
    fair = sum(widths) / lanes
    start = 0
    for lane in range(lanes):
        if start == len(order):
            return
        end = len(order)
        if lane < lanes - 1:
            end = min(end, start + max(1, int(fair // widths[start])))
        yield order[start:end]
        start = end


def _usable_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):  # on Linux; respects cpusets, not CPU quotas
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _requests(
    graph: ov.Model, precision: Precision, *, threads: int, streams: int
) -> list[ov.InferRequest]:
    settings: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": streams,
        "CPU_RUNTIME_CACHE_CAPACITY": _KERNELS_KEPT,
        # Pinned threads wait while the server's threads, or another process pinned to the same
        # core, use it. On an idle machine pinning gains nothing.
        "ENABLE_CPU_PINNING": False,
    }
    compiled = ov.Core().compile_model(graph, "CPU", settings)
    return [compiled.create_infer_request() for _ in range(streams)]
