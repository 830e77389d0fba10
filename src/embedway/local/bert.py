"""Builds the BERT sentence encoder as an OpenVINO graph, straight from a safetensors file.

Owns the mathematics: embeddings, transformer layers, mean pooling, L2 normalisation, and the tensor
names of BERT checkpoints. Knows nothing about what runs the graph, or how texts became ids.
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

# OpenVINO's stubs type its operations and nodes only partly.
ops: Any = opset15
Node = Any

# Added to the attention scores of padding: exp() of it is 0 in every precision. Being finite, it
# cannot turn a row into NaN.
_MASKED = np.float32(-1e4)


class WeightsFile:
    """A safetensors file of float32 tensors, mapped into memory.

    Its arrays are pages of the file: they are not copied, and the kernel may drop them. While an
    instance exists, the file may be replaced but not written to.
    """

    def __init__(self, path: Path) -> None:
        """Map the file at `path`.

        Raises:
            OSError: The file cannot be opened.
            ValueError: The file is not in the safetensors format.
        """
        self._path = path
        with path.open("rb") as file:
            # OpenVINO shares only writable memory, so map copy-on-write. Nothing is written.
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        size = int.from_bytes(self._map[:8], "little")
        try:
            self._entries: dict[str, dict[str, Any]] = json.loads(self._map[8 : 8 + size])
        except ValueError as error:
            raise ValueError(f"{str(path)!r} is not a safetensors file: {error}.") from error
        self._start = 8 + size

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        """Return the float32 tensor `name`.

        Raises:
            ValueError: The tensor is missing, has another type, or the file is too short.
        """
        entry = self._entries.get(name)
        if entry is None or entry["dtype"] != "F32":
            raise ValueError(f"{str(self._path)!r} has no float32 tensor {name!r}: {entry!r}.")
        shape: list[int] = entry["shape"]
        offset = self._start + entry["data_offsets"][0]
        array = np.frombuffer(self._map, np.float32, prod(shape), offset)
        # The format does not align tensors, but OpenVINO needs them aligned.
        return np.require(array, requirements=["ALIGNED"]).reshape(shape)

    def drop_pages(self) -> None:
        """Give resident pages back to the system. It reads them again when they are used."""
        if hasattr(mmap, "MADV_DONTNEED"):  # not on Windows
            self._map.madvise(mmap.MADV_DONTNEED)


def build_graph(weights: WeightsFile, *, shape: BertShape) -> ov.Model:
    """Build the encoder as a graph that uses the mapped file for its large constants.

    Inputs are `ids`, int32 [batch, length], and `lengths`, int32 [batch]: how many ids of each row
    are not padding, at least one. The output is float32 [batch, hidden size], rows of unit length.

    Args:
        weights: The weights. They must outlive the graph and everything compiled from it.
        shape: The facts about the model that the tensors do not show.

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
    results = [ops.result(_pool(states, mask))]
    # The stubs have two classes `Model`, which are one at run time.
    return ov.Model(results, [ids, lengths], "bert")  # pyright: ignore[reportGeneralTypeIssues]


def vocabulary_size(weights: WeightsFile) -> int:
    """Return the number of token ids."""
    return weights["embeddings.word_embeddings.weight"].shape[0]


def max_tokens(weights: WeightsFile) -> int:
    """Return the longest row that has positions. The model may be trained for shorter ones."""
    return weights["embeddings.position_embeddings.weight"].shape[0]


def dimensions(weights: WeightsFile) -> int:
    """Return the width of the vectors."""
    return weights["embeddings.word_embeddings.weight"].shape[1]


def _mask(length: Node, lengths: Node) -> Node:
    """Return 1.0 for ids and 0.0 for padding, [batch, length]."""
    positions = ops.range(_integer(0), length, _integer(1), "i32")
    inside = ops.less(ops.unsqueeze(positions, _integer(0)), ops.unsqueeze(lengths, _integer(1)))
    return ops.convert(inside, "f32")


def _embeddings(weights: WeightsFile, ids: Node, length: Node, shape: BertShape) -> Node:
    words = ops.gather(_shared(weights["embeddings.word_embeddings.weight"]), ids, _integer(0))
    # All tokens of a single text have type 0, so add that to every position once.
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
    # OpenVINO fuses this form, transposes included, into one kernel. `scaled_dot_product_attention`
    # becomes a slower one (by a tenth at 200 tokens, two cores, bf16). Joining the three
    # projections into one gained nothing.
    hidden = weights[f"{name}.query.bias"].shape[0]
    width = hidden // shape.heads

    def heads(projection: str) -> Node:
        projected = _linear(weights, f"{name}.{projection}", states)
        split = ops.reshape(projected, _integers(0, 0, shape.heads, width), special_zero=True)
        return ops.transpose(split, _integers(0, 2, 1, 3))

    similar = ops.matmul(heads("query"), heads("key"), transpose_a=False, transpose_b=True)
    scaled = ops.add(ops.multiply(similar, np.float32(width**-0.5)), scores)
    mixed = ops.matmul(
        ops.softmax(scaled, -1), heads("value"), transpose_a=False, transpose_b=False
    )
    joined = ops.transpose(mixed, _integers(0, 2, 1, 3))
    return ops.reshape(joined, _integers(0, 0, hidden), special_zero=True)


def _pool(states: Node, mask: Node) -> Node:
    """Return the mean without padding, scaled to unit length, which makes the division needless."""
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
