"""Compares the built-in model with the reference vectors that golden/make_golden.py made."""

import json
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from precisions import lacks_precision

from embedway.catalog.model import BertShape
from embedway.local import bert
from embedway.local.bert import IDS_PER_TEXT
from embedway.local.openvino import OpenVinoEncoder, resolve_precision
from embedway.local.packing import ROW_SIZES
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
    if reason := lacks_precision("bf16"):
        pytest.skip(reason)
    return OpenVinoEncoder(minilm.weights, shape=SHAPE, precision="bf16", threads=None)


@pytest.fixture(scope="module")
def int8(minilm) -> OpenVinoEncoder:
    """The model in int8, if the CPU has it."""
    if reason := lacks_precision("int8"):
        pytest.skip(reason)
    return OpenVinoEncoder(minilm.weights, shape=SHAPE, precision="int8", threads=None)


@pytest.fixture(params=["f32", "bf16", "int8"])
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


def in_rows(encoder: OpenVinoEncoder, tokens: list[list[int]]) -> NDArray[np.float32]:
    """Return the vectors of `tokens`, as many in a row as the longest row takes."""
    rows: list[list[list[int]]] = [[]]
    for ids in tokens:
        if sum(map(len, rows[-1])) + len(ids) > ROW_SIZES[-1]:
            rows.append([])
        rows[-1].append(ids)
    return np.concatenate([encoder.encode(row) for row in rows])


def test_token_counts_are_the_references(tokens):
    """Token counts equal the reference's, also above 128."""
    assert [len(ids) for ids in tokens] == COUNTS
    assert max(COUNTS) == 256


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
    """Texts in shared rows in f32 have the reference's vectors."""
    assert cosines(in_rows(f32, tokens), VECTORS).min() >= 0.99999


def test_as_the_reference_at_bf16(bf16, tokens):
    """Vectors in bf16 are close enough to be compared with the reference's."""
    found = cosines(in_rows(bf16, tokens), VECTORS)
    assert found.min() >= 0.9995
    assert found.mean() >= 0.9998


def test_near_the_reference_at_int8(int8, tokens):
    """Vectors in int8 are near the reference's, but not so near that they could be mixed."""
    found = cosines(in_rows(int8, tokens), VECTORS)
    assert found.min() >= 0.997
    assert found.mean() >= 0.999
    assert found.min() < 0.999  # it computes in int8: with int8 weights alone, this is 0.9993


def test_nearest_texts_at_int8(int8, tokens):
    """A text's nearest other text in int8 is, with few exceptions, that of the reference."""

    def nearest(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        return vectors @ vectors.T - 2 * np.eye(len(vectors), dtype=np.float32)

    exact, ours = nearest(VECTORS), nearest(in_rows(int8, tokens))
    chosen = exact[np.arange(len(exact)), ours.argmax(axis=1)]
    assert (exact.max(axis=1) - chosen).max() <= 0.02
    assert (exact.max(axis=1) - chosen > 1e-4).mean() <= 0.05


@pytest.mark.parametrize("size", ROW_SIZES)
def test_neighbours_do_not_matter(encoder, tokens, size):
    """A text has the same vector alone, and first, last and between others in a row of any size."""
    shortest = sorted(tokens, key=len)[:12]
    least = 0.99999 if encoder.precision == "f32" else 0.9998
    compared = 0
    for length in (3, 9, 25, 60, 120, 200, 256):
        text = min(tokens, key=lambda ids, length=length: abs(len(ids) - length))
        others: list[list[int]] = []
        while len(others) + 1 < size // IDS_PER_TEXT:
            others.append(shortest[len(others) % len(shortest)])
            if sum(map(len, others)) + len(text) > size:
                others.pop()
                break
        if len(others) < 2:
            continue  # the text alone fills the row
        for place in (0, len(others) // 2, len(others)):
            found = encoder.encode([*others[:place], text, *others[place:]])
            assert cosines(found[place : place + 1], encoder.encode([text])).min() >= least
            compared += 1
    assert compared


def test_order_does_not_matter(f32, tokens, alone):
    """Vectors come in the order of the texts."""
    order = random.Random(7).sample(range(len(tokens)), 60)
    assert cosines(in_rows(f32, [tokens[i] for i in order]), alone[order]).min() >= 0.99999


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 9, 13, 17])
def test_any_number_of_texts(encoder, tokens, size):
    """A row of any number of texts returns that many vectors."""
    texts = sorted(range(len(tokens)), key=COUNTS.__getitem__)[20 : 20 + size]
    vectors = encoder.encode([tokens[at] for at in texts])
    least = 0.997 if encoder.precision == "int8" else 0.9995
    assert vectors.shape == (size, encoder.dimensions) == (size, 384)
    assert vectors.dtype == np.float32
    assert cosines(vectors, VECTORS[texts]).min() >= least


def test_unit_length(encoder, tokens):
    """Every vector has unit length, also for texts of white space."""
    lengths = np.linalg.norm(in_rows(encoder, tokens), axis=1)
    assert np.abs(lengths - 1).max() <= 1e-5


def test_vectors_are_the_callers_own(f32, tokens):
    """A later row does not change earlier vectors."""
    first = f32.encode(tokens[40:42])
    kept = first.copy()
    f32.encode(tokens[50:52])
    assert np.array_equal(first, kept)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[]], "0 ids"),
        ([[101] * 513], "513 ids"),
        ([[101] * 384], "do not fit"),
        ([[101, 30522, 102]], "token id"),
        ([[101, -1, 102]], "token id"),
    ],
)
def test_wrong_rows_are_refused(f32, tokens, alone, rows, message):
    """An invalid text is refused, and does not affect the next row."""
    with pytest.raises(ValueError, match=message):
        f32.encode([tokens[40], *rows])
    assert cosines(f32.encode(tokens[40:42]), alone[40:42]).min() >= 0.99999


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_any_number_of_threads(minilm, tokens, alone, threads):
    """The vectors do not depend on how many threads compute them."""
    encoder = OpenVinoEncoder(minilm.weights, shape=SHAPE, precision="f32", threads=threads)
    assert cosines(in_rows(encoder, tokens[40:49]), alone[40:49]).min() >= 0.99999


def test_several_threads_at_once(minilm, tokens, alone):
    """Threads that embed at the same time get their own vectors."""
    encoder = OpenVinoEncoder(minilm.weights, shape=SHAPE, precision="f32", threads=3)
    with ThreadPoolExecutor(encoder.lanes) as threads:
        found = list(threads.map(lambda ids: encoder.encode([ids])[0], tokens[:90]))
    assert encoder.lanes == 3
    assert cosines(np.stack(found), alone[:90]).min() >= 0.99999


def test_a_file_that_is_no_model_is_named(tmp_path):
    """The error for a file that is not safetensors names it."""
    wrong = tmp_path / "model.safetensors"
    wrong.write_bytes(b"<html>not found</html>")
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        bert.WeightsFile(wrong)


def test_auto_is_a_precision():
    """`auto` resolves to an exact precision, and f32 is always available."""
    assert resolve_precision("auto") in {"bf16", "f32"}
    assert resolve_precision("f32") == "f32"
