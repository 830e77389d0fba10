"""Builds the BERT sentence encoder as an OpenVINO graph, straight from a safetensors file.

Owns the mathematics: embeddings, transformer layers, mean pooling, L2 normalisation, and the tensor
names of BERT checkpoints. Knows nothing about what runs the graph, or how texts became ids.
"""

import json
import mmap
from collections.abc import Mapping, Sequence
from itertools import chain, product
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset15

from embedway.catalog.model import BertShape
from embedway.local.packing import IDS_PER_TEXT

# OpenVINO's stubs type its operations and nodes only partly.
ops: Any = opset15
Node = Any

INT8_GROUP = 64
"""How many neighbouring weights, or numbers of a token, share a scale in int8. Groups of 32 take a
sixth longer. Groups of 128 and whole rows give worse vectors."""

_VALUE = "attention.self.value"
_PRODUCTS = (
    *("attention.self.query", "attention.self.key", _VALUE),
    *("attention.output.dense", "intermediate.dense", "output.dense"),
)

# Added to the attention scores of other texts: exp() of it is 0 in every precision. Being finite,
# it cannot turn a row into NaN.
_MASKED = np.float32(-1e4)


Int8Matrices = Mapping[str, tuple[NDArray[np.int8], NDArray[np.float32]]]
"""Quantised matrices by name: integers [outputs, groups, INT8_GROUP] and their scales [outputs,
groups, 1]."""


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


def build_graph(
    weights: WeightsFile,
    *,
    shape: BertShape,
    row: int = -1,
    int8: Int8Matrices = MappingProxyType({}),
) -> ov.Model:
    """Build the encoder as a graph that uses the mapped file for its large constants.

    It embeds a row that holds several texts one after another. `row_inputs` makes its inputs. The
    output is float32 [texts, hidden size]: a vector of unit length for each text.

    Args:
        weights: The weights. They must outlive the graph and everything compiled from it.
        shape: The facts about the model that the tensors do not show.
        row: The size of all rows; -1 for rows of any size.
        int8: The matrices to use in int8; `quantise` makes them. They must outlive the graph, too.
            Their products are computed in int8 if the graph is compiled with `INT8_GROUP` as its
            `DYNAMIC_QUANTIZATION_GROUP_SIZE`.

    Raises:
        ValueError: A tensor is missing.
    """
    texts = row // IDS_PER_TEXT if row > 0 else -1
    # The masks are inputs: computed in the graph, they would cost more whenever the size changes.
    ids = ops.parameter([1, row], np.int32, name="ids")
    positions = ops.parameter([1, row], np.int32, name="positions")
    scores = ops.parameter([1, 1, row, row], np.float32, name="scores")
    members = ops.parameter([texts, row], np.float32, name="members")
    states = _embeddings(weights, ids, positions, shape)
    for layer in range(shape.layers):
        states = _layer(weights, f"encoder.layer.{layer}", states, scores, shape, int8)
    results = [ops.result(_pool(states, members))]
    inputs = [ids, positions, scores, members]
    # The stubs have two classes `Model`, which are one at run time.
    return ov.Model(results, inputs, "bert")  # pyright: ignore[reportGeneralTypeIssues]


def quantise(weights: WeightsFile, *, shape: BertShape) -> Int8Matrices:
    """Return the layers' matrices in int8, for all graphs of this model.

    Raises:
        ValueError: A tensor is missing.
    """
    matrices: dict[str, tuple[NDArray[np.int8], NDArray[np.float32]]] = {}
    for layer, each in product(range(shape.layers), _PRODUCTS):
        # An error in what the later layers take from tokens shows in the vector as it is, most of
        # all in texts of a few tokens. Without it, half the error is left, for 7% more time.
        if each == _VALUE and layer >= shape.layers // 2:
            continue
        name = f"encoder.layer.{layer}.{each}"
        matrix = weights[f"{name}.weight"]
        groups = matrix.reshape(matrix.shape[0], -1, INT8_GROUP)
        scales = np.abs(groups).max(axis=2, keepdims=True) / np.float32(127)
        scales[scales == 0] = 1
        matrices[name] = np.rint(groups / scales).astype(np.int8), scales
    return matrices


def row_inputs(texts: Sequence[Sequence[int]], *, row: int) -> list[NDArray[Any]]:
    """Return the graph's inputs for these texts in a row of this size.

    They are `ids`, int32 [1, row]; `positions`, int32 [1, row], from 0 in each text; `scores`,
    float32 [1, 1, row, row], added to attention: 0 within a text; and `members`, float32 [texts,
    row]: 1 for the ids of a text, 0 for others and for texts that are not there.
    """
    lengths = np.array([len(text) for text in texts])
    used = lengths.sum()
    ids, positions = np.zeros((2, 1, row), np.int32)
    owners = np.full(row, -1)
    ids[0, :used] = np.fromiter(chain.from_iterable(texts), np.int32, used)
    positions[0, :used] = np.arange(used) - np.repeat(lengths.cumsum() - lengths, lengths)
    owners[:used] = np.repeat(np.arange(len(texts)), lengths)
    scores = np.where(owners[:, None] == owners, np.float32(0), _MASKED)
    members = (np.arange(row // IDS_PER_TEXT)[:, None] == owners).astype(np.float32)
    return [ids, positions, scores[None, None], members]


def vocabulary_size(weights: WeightsFile) -> int:
    """Return the number of token ids."""
    return weights["embeddings.word_embeddings.weight"].shape[0]


def max_tokens(weights: WeightsFile) -> int:
    """Return the longest row that has positions. The model may be trained for shorter ones."""
    return weights["embeddings.position_embeddings.weight"].shape[0]


def dimensions(weights: WeightsFile) -> int:
    """Return the width of the vectors."""
    return weights["embeddings.word_embeddings.weight"].shape[1]


def _embeddings(weights: WeightsFile, ids: Node, positions: Node, shape: BertShape) -> Node:
    words = ops.gather(_shared(weights["embeddings.word_embeddings.weight"]), ids, _integer(0))
    # All tokens of a single text have type 0, so add that to every position once.
    table = (
        weights["embeddings.position_embeddings.weight"]
        + weights["embeddings.token_type_embeddings.weight"][0]
    )
    places = ops.gather(_shared(table), positions, _integer(0))
    return _layer_norm(weights, "embeddings.LayerNorm", ops.add(words, places), shape)


def _layer(
    weights: WeightsFile,
    name: str,
    states: Node,
    scores: Node,
    shape: BertShape,
    int8: Int8Matrices,
) -> Node:
    attended = _attention(weights, f"{name}.attention.self", states, scores, shape, int8)
    attended = _linear(weights, f"{name}.attention.output.dense", attended, int8)
    states = _layer_norm(
        weights, f"{name}.attention.output.LayerNorm", ops.add(attended, states), shape
    )
    wide = ops.gelu(_linear(weights, f"{name}.intermediate.dense", states, int8), "erf")
    narrow = _linear(weights, f"{name}.output.dense", wide, int8)
    return _layer_norm(weights, f"{name}.output.LayerNorm", ops.add(narrow, states), shape)


def _attention(
    weights: WeightsFile,
    name: str,
    states: Node,
    scores: Node,
    shape: BertShape,
    int8: Int8Matrices,
) -> Node:
    # OpenVINO fuses this form, transposes included, into one kernel. `scaled_dot_product_attention`
    # becomes a slower one (by a tenth at 200 tokens, two cores, bf16). Joining the three
    # projections into one gained nothing.
    hidden = weights[f"{name}.query.bias"].shape[0]
    width = hidden // shape.heads

    def heads(projection: str) -> Node:
        projected = _linear(weights, f"{name}.{projection}", states, int8)
        split = ops.reshape(projected, _integers(0, 0, shape.heads, width), special_zero=True)
        return ops.transpose(split, _integers(0, 2, 1, 3))

    similar = ops.matmul(heads("query"), heads("key"), transpose_a=False, transpose_b=True)
    scaled = ops.add(ops.multiply(similar, np.float32(width**-0.5)), scores)
    mixed = ops.matmul(
        ops.softmax(scaled, -1), heads("value"), transpose_a=False, transpose_b=False
    )
    joined = ops.transpose(mixed, _integers(0, 2, 1, 3))
    return ops.reshape(joined, _integers(0, 0, hidden), special_zero=True)


def _pool(states: Node, members: Node) -> Node:
    """Return the mean of each text, scaled to unit length, which makes the division needless."""
    row = ops.squeeze(states, _integers(0))
    total = ops.matmul(members, row, transpose_a=False, transpose_b=False)
    return ops.normalize_l2(total, _integers(1), 1e-12, "max")


def _linear(weights: WeightsFile, name: str, states: Node, int8: Int8Matrices) -> Node:
    matrix = _restored(*int8[name]) if name in int8 else _shared(weights[f"{name}.weight"])
    product = ops.matmul(states, matrix, transpose_a=False, transpose_b=True)
    return ops.add(product, _shared(weights[f"{name}.bias"]))


def _restored(integers: NDArray[np.int8], scales: NDArray[np.float32]) -> Node:
    """Return a quantised matrix in the form that OpenVINO recognises as compressed weights."""
    outputs, groups, size = integers.shape
    restored = ops.multiply(ops.convert(_shared(integers), np.float32), _shared(scales))
    return ops.reshape(restored, _integers(outputs, groups * size), special_zero=False)


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


def _shared(array: NDArray[Any]) -> Node:
    return ops.constant(array, shared_memory=True)


def _integer(value: int) -> Node:
    return ops.constant(value, np.int64)


def _integers(*values: int) -> Node:
    return ops.constant(list(values), np.int64)
