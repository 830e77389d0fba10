"""Makes the golden vectors with sentence-transformers, the reference for this model.

It was run once; the tests only read what it wrote. To run it again, in an environment of its own
(torch is large and Embedway does without it):

    pip install torch sentence-transformers
    python tests/local/golden/make_golden.py FOLDER

FOLDER holds the model in the layout of sentence-transformers: model.safetensors, modules.json,
tokenizer.json and so on. Reads texts.json beside this file; writes vectors.npy, float32 of shape
(texts, dimensions), and token_counts.json, special tokens included.
"""

import json
import sys
from pathlib import Path

import numpy as np
from sentence_transformers import SentenceTransformer

HERE = Path(__file__).parent
MAX_TOKENS = 256


def load(folder: str) -> SentenceTransformer:
    """The model on the CPU, with nothing that pads to or cuts at its tokenizer file's 128."""
    model = SentenceTransformer(folder, device="cpu")
    model.max_seq_length = MAX_TOKENS
    backend = model.tokenizer.backend_tokenizer
    backend.no_padding()
    backend.no_truncation()
    return model


def main(folder: str) -> None:
    """Writes the golden files."""
    texts = json.loads((HERE / "texts.json").read_text(encoding="utf-8"))
    model = load(folder)
    counts = [len(ids) for ids in model.tokenizer(texts)["input_ids"]]
    if (longest := max(counts)) > MAX_TOKENS:
        sys.exit(f"A text has {longest} tokens; beyond {MAX_TOKENS} they would be cut.")
    for text, count in zip(texts, counts, strict=True):
        seen = model.preprocess([text])["input_ids"].shape[1]
        if seen != count:
            sys.exit(f"The model sees {seen} tokens of {count} in {text!r}.")
    # One at a time: then no vector can depend on its neighbours or on padding.
    vectors = np.concatenate(
        [model.encode([text], normalize_embeddings=True, batch_size=1) for text in texts]
    )
    np.save(HERE / "vectors.npy", vectors.astype(np.float32))
    (HERE / "token_counts.json").write_text(json.dumps(counts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
