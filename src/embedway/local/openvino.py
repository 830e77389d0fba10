"""Runs a BERT encoder on this machine's CPU with OpenVINO.

Owns precision and threads. Knows nothing about requests, or what is inside the graph.
"""

import os
import platform
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from embedway.catalog.model import BertShape
from embedway.local import bert, packing

Precision = Literal["bf16", "f32", "int8"]

# How many prepared kernels to keep. With 128, each row costs a tenth less than with 16 when all
# sizes take turns, for 5 MB; more gain nothing.
_KERNELS_KEPT = 128
# Each lane has its own activations, so lanes are bounded. Further threads make the lanes wider.
_MAX_LANES = 4
_FULL_SHARE = 2 / 3
"""A row that is used to a smaller part costs less in the graph for rows of any size."""


class OpenVinoEncoder:
    """Turns token ids into unit vectors. Threads may call it at the same time, one for each lane.

    Each lane works on a full row of its own with one thread, and except in f32 in a graph for rows
    of that size. On two cores that takes a fifth less CPU time than two threads on one row. A row
    that comes alone, or is not full, is worked on by all threads in a graph for rows of any size:
    200 tokens take 6 ms instead of 12.
    """

    dimensions: int
    """The width of the vectors."""
    max_tokens: int
    """The most ids of a text: the model has positions for them, and a row has room."""
    precision: Precision
    """The precision that the model computes in."""

    def __init__(
        self,
        weights: Path,
        *,
        shape: BertShape,
        precision: Literal["auto"] | Precision,
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
        self.max_tokens = min(bert.max_tokens(self._weights), packing.ROW_SIZES[-1])
        self._vocabulary_size = bert.vocabulary_size(self._weights)
        self.precision = resolve_precision(precision)
        # OpenVINO keeps all constants of a graph, so the graphs share these.
        self._int8: bert.Int8Matrices = (
            bert.quantise(self._weights, shape=shape) if self.precision == "int8" else {}
        )
        threads = threads or _usable_cpus()
        self.lanes = min(threads, _MAX_LANES)
        """How many threads may call `encode` at the same time."""
        self._together = self._compile(shape, threads=threads, streams=1)
        sizes = packing.FULL_SIZES
        self._apart: dict[int, list[ov.InferRequest]]
        if self.precision == "f32":
            # With a graph for each size, full rows took 3% less time, and the process 65 MB more.
            of_any_size = self._compile(shape, threads=threads, streams=self.lanes)
            self._apart = dict.fromkeys(sizes, of_any_size)
        else:
            self._apart = {
                size: self._compile(shape, threads=threads, streams=self.lanes, row=size)
                for size in sizes
            }
        self._lock = threading.Lock()
        self._running = 0
        """How many rows are being embedded."""

    def encode(self, texts: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Return new unit vectors, float32 [len(texts), dimensions], in the order of `texts`.

        Args:
            texts: The ids of texts that fit into one row together, special tokens included.

        Raises:
            ValueError: A text is empty or has an unknown id, or they do not fit into a row.
        """
        for text in texts:
            if not 0 < len(text) <= self.max_tokens:
                raise ValueError(
                    f"A text has {len(text)} ids, but this model takes 1 to {self.max_tokens}."
                )
            # OpenVINO does not refuse unknown ids: it would return the vector of another text.
            if min(text) < 0 or max(text) >= self._vocabulary_size:
                raise ValueError(f"A token id is not in 0 to {self._vocabulary_size - 1}.")
        used = max(sum(map(len, texts)), len(texts) * bert.IDS_PER_TEXT)
        size = packing.row_size(used, packing.FULL_SIZES)
        free = self._apart[size]
        with self._lock:
            self._running += 1
            comes_alone = self._running == 1 and self.lanes > 1
            if self._together and (comes_alone or used < _FULL_SHARE * size):
                free, size = self._together, packing.row_size(used)
            request = free.pop()
        try:
            request.infer(bert.row_inputs(texts, row=size))
            # Copy, because the next row reuses this memory.
            return request.get_output_tensor(0).data[: len(texts)].copy()
        finally:
            with self._lock:
                self._running -= 1
                free.append(request)

    def _compile(
        self, shape: BertShape, *, threads: int, streams: int, row: int = -1
    ) -> list[ov.InferRequest]:
        """Compile the model for rows of this size; return a request for each stream, warmed up."""
        settings: dict[str, Any] = {
            # With int8, bf16 for the rest would turn vectors by as much as int8 does (cosine 0.9986
            # at the least), so that two machines would disagree.
            "INFERENCE_PRECISION_HINT": "bf16" if self.precision == "bf16" else "f32",
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": bert.INT8_GROUP if self._int8 else 0,
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": streams,
            "CPU_RUNTIME_CACHE_CAPACITY": _KERNELS_KEPT,
            # Pinned threads wait while the server's threads, or another process pinned to the same
            # core, use it. On an idle machine pinning gains nothing.
            "ENABLE_CPU_PINNING": False,
        }
        graph = bert.build_graph(self._weights, shape=shape, row=row, int8=self._int8)
        compiled = ov.Core().compile_model(graph, "CPU", settings)
        requests = [compiled.create_infer_request() for _ in range(streams)]
        for request in requests:
            request.infer(bert.row_inputs([[0]], row=max(row, packing.ROW_SIZES[0])))
        # By now OpenVINO has its own copy of everything but the word embeddings.
        self._weights.drop_pages()
        return requests


def resolve_precision(precision: Literal["auto"] | Precision) -> Precision:
    """Return the precision to compute in.

    `auto` is the fastest that the CPU has natively, but never int8, which is another vector space.

    Raises:
        ValueError: The CPU has no instructions for the precision.
    """
    # OpenVINO lists BF16 if the CPU has AMX, AVX512_BF16 or AVX-NE-CONVERT. On other CPUs it would
    # emulate bf16, which is slower, or silently compute in f32.
    capabilities: list[str] = ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    has_bf16 = "BF16" in capabilities
    if precision == "auto":
        return "bf16" if has_bf16 else "f32"
    is_native = {"f32": True, "bf16": has_bf16, "int8": _has_int8()}[precision]
    if not is_native:
        raise ValueError(f"This CPU has no instructions for '{precision}'; use 'f32' or 'auto'.")
    return precision


def _has_int8() -> bool:
    """Return whether OpenVINO quantises activations on this CPU; True if it cannot be found out.

    It does so with VNNI. Elsewhere it computes in f32 with weights that were int8, which is as slow
    as f32, and gives vectors that differ from those of other machines. OpenVINO cannot be asked:
    it lists INT8 for every CPU.
    """
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    except OSError:  # not Linux
        return platform.machine() in {"x86_64", "AMD64"}
    return not {"avx512_vnni", "avx_vnni"}.isdisjoint(flags)


def _usable_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):  # on Linux; respects cpusets, not CPU quotas
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
