"""The BERT sentence encoder as an OpenVINO graph, built straight from a safetensors file.

Owns the mathematics: embeddings, transformer layers, mean pooling, L2 normalisation, and the names
that BERT checkpoints give their tensors. Must not know what runs the graph, in which precision, or
how texts became ids.
"""

import json
import mmap
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset15

from embedway.catalog.model import BertShape

# OpenVINO's stubs leave its operations, and the nodes they make, partly untyped.
ops: Any = opset15
Node = Any

# Added to the attention scores of padding. Finite, so that no row can become NaN; exp() of it is 0
# in every precision.
_MASKED = np.float32(-1e4)


class WeightsFile:
    """A safetensors file of float32 tensors, mapped into memory rather than read.

    The arrays it hands out are the file's own pages: they cost no copy, and the kernel may drop
    them. The file must not be written to while this lives, only replaced.
    """

    def __init__(self, path: Path) -> None:
        """Maps the file.

        Args:
            path: The safetensors file.

        Raises:
            OSError: It cannot be opened.
            ValueError: It is not a safetensors file.
        """
        self._path = path
        with path.open("rb") as file:
            # Copy on write, because OpenVINO shares only memory that may be written to. Nobody
            # writes.
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        size = int.from_bytes(self._map[:8], "little")
        try:
            self._entries: dict[str, dict[str, Any]] = json.loads(self._map[8 : 8 + size])
        except ValueError as error:
            raise ValueError(f"{str(path)!r} is not a safetensors file: {error}.") from error
        self._start = 8 + size

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        """The tensor of that name, float32.

        Raises:
            ValueError: There is none, it is of another type, or the file is cut short.
        """
        entry = self._entries.get(name)
        if entry is None or entry["dtype"] != "F32":
            raise ValueError(f"{str(self._path)!r} has no float32 tensor {name!r}: {entry!r}.")
        shape: list[int] = entry["shape"]
        first = self._start + entry["data_offsets"][0]
        array = np.frombuffer(self._map, np.float32, prod(shape), first)
        # The format only promises where the data starts, and OpenVINO wants it aligned.
        return np.require(array, requirements=["ALIGNED"]).reshape(shape)

    def drop_pages(self) -> None:
        """Gives resident pages back to the system; one that is used again is read again."""
        if hasattr(mmap, "MADV_DONTNEED"):  # not on Windows
            self._map.madvise(mmap.MADV_DONTNEED)


def build_graph(weights: WeightsFile, *, shape: BertShape) -> ov.Model:
    """The encoder as a graph whose large constants are the mapped file itself.

    Inputs: `ids`, int32 [batch, length], and `lengths`, int32 [batch], the ids of each row that
    are not padding, at least one. Output: float32 [batch, hidden size], rows of unit length.

    Args:
        weights: Must outlive the graph and whatever is compiled from it.
        shape: What of the model the tensors do not tell.

    Raises:
        ValueError: A tensor is missing.
    """
    ids = ops.parameter([-1, -1], np.int32, name="ids")
    lengths = ops.parameter([-1], np.int32, name="lengths")
    length = ops.gather(ops.shape_of(ids), _integer(1), _integer(0))
    mask = _mask(length, lengths)
    scores = ops.unsqueeze(
        ops.multiply(ops.subtract(np.float32(1), mask), _MASKED), _integers(1, 2)
    )
    states = _embeddings(weights, ids, length, shape)
    for layer in range(shape.layers):
        states = _layer(weights, f"encoder.layer.{layer}", states, scores, shape)
    results = [ops.result(_pooled(states, mask))]
    # The stubs name two classes `Model` that are one when it runs.
    return ov.Model(results, [ids, lengths], "bert")  # pyright: ignore[reportGeneralTypeIssues]


def vocabulary(weights: WeightsFile) -> int:
    """How many token ids there are."""
    return weights["embeddings.word_embeddings.weight"].shape[0]


def max_tokens(weights: WeightsFile) -> int:
    """The longest row there are positions for; what the model was trained for may be less."""
    return weights["embeddings.position_embeddings.weight"].shape[0]


def dimensions(weights: WeightsFile) -> int:
    """The width of the vectors."""
    return weights["embeddings.word_embeddings.weight"].shape[1]


def _mask(length: Node, lengths: Node) -> Node:
    """1.0 for ids and 0.0 for padding, [batch, length]."""
    positions = ops.range(_integer(0), length, _integer(1), "i32")
    inside = ops.less(ops.unsqueeze(positions, _integer(0)), ops.unsqueeze(lengths, _integer(1)))
    return ops.convert(inside, "f32")


def _embeddings(weights: WeightsFile, ids: Node, length: Node, shape: BertShape) -> Node:
    words = ops.gather(_shared(weights["embeddings.word_embeddings.weight"]), ids, _integer(0))
    # A single text is of type 0 throughout, so that is added to every position here, once.
    positions = (
        weights["embeddings.position_embeddings.weight"]
        + weights["embeddings.token_type_embeddings.weight"][0]
    )
    first = ops.slice(
        _shared(positions),
        _integers(0),
        ops.unsqueeze(length, _integer(0)),
        _integers(1),
        _integers(0),
    )
    return _layer_norm(weights, "embeddings.LayerNorm", ops.add(words, first), shape)


def _layer(weights: WeightsFile, name: str, states: Node, scores: Node, shape: BertShape) -> Node:
    attended = _linear(
        weights,
        f"{name}.attention.output.dense",
        _attention(weights, f"{name}.attention.self", states, scores, shape),
    )
    states = _layer_norm(
        weights, f"{name}.attention.output.LayerNorm", ops.add(attended, states), shape
    )
    wide = ops.gelu(_linear(weights, f"{name}.intermediate.dense", states), "erf")
    narrow = _linear(weights, f"{name}.output.dense", wide)
    return _layer_norm(weights, f"{name}.output.LayerNorm", ops.add(narrow, states), shape)


def _attention(
    weights: WeightsFile, name: str, states: Node, scores: Node, shape: BertShape
) -> Node:
    # Spelled out rather than `scaled_dot_product_attention`: OpenVINO fuses this form, its
    # transposes included, into one kernel, and the operation into a slower one (by a tenth at 200
    # tokens, two cores, bf16). Joining the three projections into one bought nothing.
    hidden = weights[f"{name}.query.bias"].shape[0]
    width = hidden // shape.heads

    def heads(part: str) -> Node:
        projected = _linear(weights, f"{name}.{part}", states)
        split = ops.reshape(projected, _integers(0, 0, shape.heads, width), special_zero=True)
        return ops.transpose(split, _integers(0, 2, 1, 3))

    similar = ops.matmul(heads("query"), heads("key"), transpose_a=False, transpose_b=True)
    scaled = ops.add(ops.multiply(similar, np.float32(width**-0.5)), scores)
    mixed = ops.matmul(
        ops.softmax(scaled, -1), heads("value"), transpose_a=False, transpose_b=False
    )
    joined = ops.transpose(mixed, _integers(0, 2, 1, 3))
    return ops.reshape(joined, _integers(0, 0, hidden), special_zero=True)


def _pooled(states: Node, mask: Node) -> Node:
    """Mean over what is not padding, at unit length; the mean's division cancels out in that."""
    total = ops.matmul(
        ops.unsqueeze(mask, _integer(1)), states, transpose_a=False, transpose_b=False
    )
    return ops.normalize_l2(ops.squeeze(total, _integers(1)), _integers(1), 1e-12, "max")


def _linear(weights: WeightsFile, name: str, states: Node) -> Node:
    product = ops.matmul(
        states, _shared(weights[f"{name}.weight"]), transpose_a=False, transpose_b=True
    )
    return ops.add(product, _shared(weights[f"{name}.bias"]))


def _layer_norm(weights: WeightsFile, name: str, states: Node, shape: BertShape) -> Node:
    normed = ops.mvn(
        states,
        _integers(-1),
        normalize_variance=True,
        eps=shape.layer_norm_eps,
        eps_mode="inside_sqrt",
    )
    scaled = ops.multiply(normed, _shared(weights[f"{name}.weight"]))
    return ops.add(scaled, _shared(weights[f"{name}.bias"]))


def _shared(array: NDArray[np.float32]) -> Node:
    return ops.constant(array, shared_memory=True)


def _integer(value: int) -> Node:
    return ops.constant(value, np.int64)


def _integers(*values: int) -> Node:
    return ops.constant(list(values), np.int64)
