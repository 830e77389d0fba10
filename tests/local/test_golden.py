"""Compares the built-in model with the reference vectors that golden/make_golden.py made."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from embedway.catalog.model import BertShape
from embedway.local import bert
from embedway.local.openvino import OpenVinoEncoder, padded_shape, resolve_precision
from embedway.local.tokenizer import ModelTokenizer

GOLDEN = Path(__file__).parent / "golden"
TEXTS: list[str] = json.loads((GOLDEN / "texts.json").read_text(encoding="utf-8"))
COUNTS: list[int] = json.loads((GOLDEN / "token_counts.json").read_text(encoding="utf-8"))
VECTORS: NDArray[np.float32] = np.load(GOLDEN / "vectors.npy")
SHAPE = BertShape(layers=6, heads=12, layer_norm_eps=1e-12)


@pytest.fixture(scope="module")
def tokens(minilm) -> list[list[int]]:
    """The token ids of the golden texts."""
    return ModelTokenizer(minilm.tokenizer).encode(TEXTS)


@pytest.fixture(scope="module")
def f32(minilm) -> OpenVinoEncoder:
    """The model at full precision."""
    return OpenVinoEncoder(minilm.weights, shape=SHAPE, precision="f32", threads=None)


@pytest.fixture(scope="module")
def bf16(minilm) -> OpenVinoEncoder:
    """The model in bf16, if the CPU has it."""
    if resolve_precision("auto") != "bf16":
        pytest.skip("this CPU has no bf16 instructions")
    return OpenVinoEncoder(minilm.weights, shape=SHAPE, precision="bf16", threads=None)


@pytest.fixture(params=["f32", "bf16"])
def encoder(request) -> OpenVinoEncoder:
    """Each precision in turn."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def alone(f32, tokens) -> NDArray[np.float32]:
    """The golden texts' vectors at full precision, each embedded alone."""
    return np.concatenate([f32.encode([ids]) for ids in tokens])


def cosines(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the cosine of each row with its counterpart."""
    ours, theirs = ours.astype(np.float64), theirs.astype(np.float64)
    norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    return np.einsum("ij,ij->i", ours, theirs) / norms


def in_batches(encoder: OpenVinoEncoder, tokens: list[list[int]]) -> NDArray[np.float32]:
    """Return the vectors of `tokens`, embedded 16 at a time."""
    return np.concatenate(
        [encoder.encode(tokens[start : start + 16]) for start in range(0, len(tokens), 16)]
    )


def test_token_counts_are_the_references(tokens):
    """Token counts equal the reference's, also above 128."""
    assert [len(ids) for ids in tokens] == COUNTS
    assert max(COUNTS) == 256


def test_whole_batches_have_no_dummy_rows(f32):
    """Rounded down, a batch fills all lanes evenly and has at least half of its rows."""
    lanes = len(f32._lanes)
    for rows in range(1, 200):
        whole = f32.round_down(rows)
        assert 1 <= whole <= rows
        if rows >= lanes:
            assert whole > rows // 2
            assert padded_shape(whole // lanes, 1)[0] * lanes == whole


def test_ids_are_never_cut(minilm):
    """A text that is too long for the model keeps all its tokens."""
    (ids,) = ModelTokenizer(minilm.tokenizer).encode(["word " * 1000])
    assert len(ids) == 1002


def test_one_endless_word_is_one_token(minilm):
    """A word of 100,000 characters becomes one unknown token quickly."""
    (ids,) = ModelTokenizer(minilm.tokenizer).encode(["a" * 100_000])
    assert len(ids) == 3


def test_alone_as_the_reference_at_f32(alone):
    """Single texts in f32 have the reference's vectors."""
    assert cosines(alone, VECTORS).min() >= 0.99999


def test_batched_as_the_reference_at_f32(f32, tokens):
    """Texts in mixed batches in f32 have the reference's vectors."""
    assert cosines(in_batches(f32, tokens), VECTORS).min() >= 0.99999


def test_as_the_reference_at_bf16(bf16, tokens):
    """Vectors in bf16 are close enough to be compared with the reference's."""
    found = cosines(in_batches(bf16, tokens), VECTORS)
    assert found.min() >= 0.9995
    assert found.mean() >= 0.9998


def test_neighbours_do_not_matter(f32, tokens, alone):
    """A text's vector is the same alone and in a batch of 100."""
    assert cosines(f32.encode(tokens[:100]), alone[:100]).min() >= 0.99999


def test_order_does_not_matter(f32, tokens, alone):
    """Vectors come in the order of the texts."""
    order = random.Random(7).sample(range(len(tokens)), 60)
    assert cosines(f32.encode([tokens[i] for i in order]), alone[order]).min() >= 0.99999


def test_a_long_neighbour_does_not_matter(f32, tokens, alone):
    """Padding to 256 tokens beside a text does not change its vector."""
    longest = COUNTS.index(256)
    short = [i for i, count in enumerate(COUNTS) if count <= 8]
    together = f32.encode([tokens[i] for i in [*short[:3], longest, *short[3:6]]])
    found = cosines(together, alone[[*short[:3], longest, *short[3:6]]])
    assert found.min() >= 0.99999


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 9, 13, 17, 33])
def test_any_batch_size(encoder, tokens, size):
    """A batch of any size returns that many vectors, without dummy rows."""
    vectors = encoder.encode(tokens[40 : 40 + size])
    assert vectors.shape == (size, encoder.dimensions) == (size, 384)
    assert vectors.dtype == np.float32
    assert cosines(vectors, VECTORS[40 : 40 + size]).min() >= 0.9995


def test_no_items(f32):
    """An empty batch returns no vectors."""
    assert f32.encode([]).shape == (0, 384)


def test_unit_length(encoder, tokens):
    """Every vector has unit length, also for texts of white space."""
    lengths = np.linalg.norm(in_batches(encoder, tokens), axis=1)
    assert np.abs(lengths - 1).max() <= 1e-5


def test_vectors_are_the_callers_own(f32, tokens):
    """A later batch does not change earlier vectors."""
    first = f32.encode(tokens[40:42])
    kept = first.copy()
    f32.encode(tokens[50:52])
    assert np.array_equal(first, kept)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[]], "0 ids"),
        ([[101] * 513], "513 ids"),
        ([[101, 30522, 102]], "token id"),
        ([[101, -1, 102]], "token id"),
    ],
)
def test_wrong_rows_are_refused(f32, tokens, alone, rows, message):
    """An invalid row is refused, and does not affect the next batch."""
    with pytest.raises(ValueError, match=message):
        f32.encode([tokens[40], *rows])
    assert cosines(f32.encode(tokens[40:42]), alone[40:42]).min() >= 0.99999


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_any_number_of_threads(minilm, tokens, alone, threads):
    """The vectors do not depend on how many threads compute them."""
    encoder = OpenVinoEncoder(minilm.weights, shape=SHAPE, precision="f32", threads=threads)
    assert cosines(encoder.encode(tokens[40:49]), alone[40:49]).min() >= 0.99999


def test_few_shapes():
    """Rows and lengths are padded to few values, rows by at most half."""
    shapes = [padded_shape(rows, length) for rows in range(1, 130) for length in range(1, 257)]
    assert {length for _, length in shapes} == set(range(16, 257, 16))
    assert sorted({rows for rows, _ in shapes}) == [
        1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192,
    ]  # fmt: skip
    assert all(rows <= padded_shape(rows, 1)[0] <= max(1.5 * rows, 1) for rows in range(1, 130))


def test_a_file_that_is_no_model_is_named(tmp_path):
    """The error for a file that is not safetensors names it."""
    wrong = tmp_path / "model.safetensors"
    wrong.write_bytes(b"<html>not found</html>")
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        bert.WeightsFile(wrong)


def test_auto_is_a_precision():
    """`auto` resolves to a precision, and f32 is always available."""
    assert resolve_precision("auto") in {"bf16", "f32"}
    assert resolve_precision("f32") == "f32"
