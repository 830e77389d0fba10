"""Runs a BERT encoder on this machine's CPU with OpenVINO.

Owns precision, threads and the shapes a batch is padded to. Must not know texts, requests or how
batches are made up, nor what is inside the graph.
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

# OpenVINO prepares kernels and memory for each new shape (5-15 ms) and keeps some, so there must
# be few shapes. Lengths: AMX multiplies tiles of 16 rows, and 24 ids cost what 32 do.
_LENGTH_STEP = 16
# Prepared kernels kept. Going back to an earlier shape costs 1-2 ms with 16 as with 5,000, and
# after 1,500 random batches 256 of them take 45 MB more. (0 means no sharing, and yet more.)
_KERNELS_KEPT = 16
# Lanes have activations of their own, so their number is bounded; beyond it each gets more threads.
_MAX_LANES = 4


class OpenVinoEncoder:
    """Turns token ids into unit vectors. Not thread-safe: call it from one thread at a time.

    A batch is shared out to lanes of one thread each, which never wait for one another; on two
    cores that is a fifth fewer CPU seconds per token than one lane of two threads. A single row
    cannot be shared out, so it takes all threads together: 6 ms instead of 12 ms for 200 tokens.
    """

    dimensions: int
    """The width of the vectors."""
    max_tokens: int
    """The longest row there are positions for."""
    precision: Precision
    """What the model computes in."""

    def __init__(
        self,
        weights: Path,
        *,
        shape: BertShape,
        precision: Literal["auto", "bf16", "f32"],
        threads: int | None,
    ) -> None:
        """Loads and compiles the model, and runs it once so that the first request is not slower.

        Args:
            weights: Its safetensors file, which must not be written to from now on.
            shape: What the weights do not tell of it.
            precision: See `resolve_precision`.
            threads: For computing; None: one per CPU this process may use.

        Raises:
            OSError: The weights cannot be read.
            ValueError: They are not a float32 BERT, or the CPU lacks the precision.
        """
        self._weights = bert.WeightsFile(weights)
        self.dimensions = bert.dimensions(self._weights)
        self.max_tokens = bert.max_tokens(self._weights)
        self._vocabulary = bert.vocabulary(self._weights)
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
        # OpenVINO has packed its own copy of all but the word embeddings by now.
        self._weights.drop_pages()

    def encode(self, batch: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """The vectors of token ids, float32 [len(batch), dimensions], in order; the caller's own.

        Memory grows with the padded batch and is kept: about 15 KB a token in bf16, 22 KB in f32.

        Args:
            batch: Rows of ids, special tokens included. Rows of like length waste least.

        Raises:
            ValueError: A row is empty or too long for the model, or holds an unknown id.
        """
        for row in batch:
            if not 0 < len(row) <= self.max_tokens:
                raise ValueError(
                    f"A row of {len(row)} ids; this model takes 1 to {self.max_tokens}."
                )
        vectors = np.empty((len(batch), self.dimensions), np.float32)
        requests = self._together if len(batch) == 1 else self._lanes
        shares = list(_shares([len(row) for row in batch], len(requests)))
        inputs = [self._padded([batch[row] for row in share]) for share in shares]
        with ExitStack() as waiting:  # for every lane, whatever fails: a busy one cannot be started
            for request, padded in zip(requests, inputs, strict=False):
                request.start_async(padded)
                waiting.callback(request.wait)
        for request, share in zip(requests, shares, strict=False):
            # A copy: this memory is the next batch's.
            vectors[share] = request.get_output_tensor(0).data[: len(share)]
        return vectors

    def whole(self, rows: int) -> int:
        """The most of `rows` that every lane runs without dummy rows; at least 1."""
        lanes = len(self._lanes)
        if rows < lanes:
            return rows
        share = rows // lanes
        power = 1 << (share.bit_length() - 1)
        between = power // 2 * 3
        return lanes * (between if power < between <= share else power)

    def _padded(self, rows: Sequence[Sequence[int]]) -> list[NDArray[np.int32]]:
        """The graph's inputs; dummy rows hold one id, as an empty row would have no mean."""
        shape = padded_shape(len(rows), max(len(row) for row in rows))
        ids = np.zeros(shape, np.int32)
        lengths = np.ones(shape[0], np.int32)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = row
            lengths[index] = len(row)
        # OpenVINO does not refuse them: it would answer with some other text's vector.
        if ids.min() < 0 or ids.max() >= self._vocabulary:
            raise ValueError(f"A token id outside 0 to {self._vocabulary - 1}.")
        return [ids, lengths]


def resolve_precision(asked: Literal["auto", "bf16", "f32"]) -> Precision:
    """What the model is computed in; `auto` is the fastest that the CPU computes natively.

    Raises:
        ValueError: `bf16` on a CPU without it.
    """
    # OpenVINO names BF16 where the CPU has AMX, AVX512_BF16 or AVX-NE-CONVERT. Elsewhere it would
    # emulate bf16 or quietly compute in f32: slower, or not what was asked for.
    capabilities: list[str] = ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    native = "BF16" in capabilities
    if asked == "bf16" and not native:
        raise ValueError("This CPU has no instructions for 'bf16'; use 'f32' or 'auto'.")
    if asked == "auto":
        return "bf16" if native else "f32"
    return asked


def padded_shape(rows: int, length: int) -> tuple[int, int]:
    """The rows and the length that a batch of `rows`, the longest of `length` ids, is padded to.

    Rows go up to 1, 2, 3, 4, 6, 8, 12, 16, 24 ...: with powers of two alone, a batch of random
    size is a quarter padding and up to a fifth slower.
    """
    power = 1 << (rows - 1).bit_length()
    between = power // 4 * 3
    return (between if rows <= between else power), -(-length // _LENGTH_STEP) * _LENGTH_STEP


def _shares(lengths: Sequence[int], lanes: int) -> Iterator[list[int]]:
    """Positions in `lengths` in at most `lanes` shares of about as many padded tokens each.

    Longest rows first, so that the shares, too, hold rows of like length.
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
    if hasattr(os, "sched_getaffinity"):  # on Linux; knows cpusets, not CPU quotas
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
        # Pinned threads wait for their core while the server's threads, or another process pinned
        # to the same ones, are on it. On an idle machine pinning gains nothing.
        "ENABLE_CPU_PINNING": False,
    }
    compiled = ov.Core().compile_model(graph, "CPU", settings)
    return [compiled.create_infer_request() for _ in range(streams)]
