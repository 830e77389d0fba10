"""Embeds texts with sentence-transformers, as told on standard input. Runs in its environment.

    python encode.py MODEL_FOLDER BACKEND

Each line is an object. `texts` alone asks for their vectors. With `at_once` and `seconds`, it
embeds `at_once` of them in each call for some seconds, and answers with what each call took.
"""

import itertools
import json
import sys
import time

from sentence_transformers import SentenceTransformer


def main() -> None:
    """Load the model, say so, and answer each line."""
    answers, sys.stdout = sys.stdout, sys.stderr  # libraries print what is no answer
    model = SentenceTransformer(sys.argv[1], backend=sys.argv[2], device="cpu")
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(model, **json.loads(line))), file=answers, flush=True)


def answer(
    model: SentenceTransformer, *, texts: list[str], at_once: int = 0, seconds: float = 0
) -> list[float] | list[list[float]]:
    """Return the vectors of the texts, or the seconds that each call took."""
    if not at_once:
        return model.encode(texts, show_progress_bar=False).tolist()
    turns, calls_s = itertools.cycle(texts), []
    end_s = time.perf_counter() + seconds
    while (start_s := time.perf_counter()) < end_s:
        model.encode(list(itertools.islice(turns, at_once)), show_progress_bar=False)
        calls_s.append(time.perf_counter() - start_s)
    return calls_s


if __name__ == "__main__":
    main()
