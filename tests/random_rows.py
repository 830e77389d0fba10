"""Embeds rows of random texts, and prints the memory of its process as it goes on.

    python tests/random_rows.py MODEL.SAFETENSORS PRECISION ROWS

Every row has other lengths, 1 to 256 ids, and other ids, so it needs another size of row than the
one before, and other word embeddings. It prints a line of JSON for every `EVERY` rows: how many
rows are done, the resident memory in MiB, and how much of that are pages of files.
"""

import json
import random
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import cast

from embedway.catalog import catalog
from embedway.local.bert import IDS_PER_TEXT
from embedway.local.openvino import OpenVinoEncoder, Precision
from embedway.local.packing import ROW_SIZES

EVERY = 100
MAX_IDS = 256
VOCABULARY = 30_522


def random_rows(seed: int) -> Iterator[list[list[int]]]:
    """Yield rows of random lengths and ids: a text alone, or as many as fit into a random size."""
    draw = random.Random(seed)
    while True:
        room = draw.choice(ROW_SIZES)
        longest = draw.randint(1, min(room, MAX_IDS))
        texts: list[list[int]] = []
        while True:
            text = draw.choices(range(VOCABULARY), k=draw.randint(1, longest))
            used = sum(max(len(each), IDS_PER_TEXT) for each in (*texts, text))
            if texts and (used > room or draw.random() < 0.05):
                break
            texts.append(text)
        yield texts


def resident_mib() -> dict[str, float]:
    """Return the memory of this process: all, and the part that are pages of files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    sizes = {name: value for name, _, value in (line.partition(":") for line in lines)}
    return {
        name: round(int(sizes[field].split()[0]) / 1024, 1)
        for name, field in (("mib", "VmRSS"), ("files_mib", "RssFile"))
    }


def main() -> None:
    """Embed the rows on all lanes."""
    weights, count = Path(sys.argv[1]), int(sys.argv[3])
    precision = cast("Precision", sys.argv[2])
    model = catalog.load_catalog(eu_native=False).local_models()[0]
    encoder = OpenVinoEncoder(weights, shape=model.weights.bert, precision=precision, threads=2)
    print(json.dumps({"rows": 0, **resident_mib()}), flush=True)
    rows = random_rows(seed=1)
    with ThreadPoolExecutor(encoder.lanes) as lanes:
        for done in range(EVERY, count + 1, EVERY):
            list(lanes.map(encoder.encode, islice(rows, EVERY)))
            print(json.dumps({"rows": done, **resident_mib()}), flush=True)


if __name__ == "__main__":
    main()
