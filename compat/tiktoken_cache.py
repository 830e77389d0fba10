"""Fills tiktoken's cache, so that neither this program nor a client needs the network."""

import hashlib
from pathlib import Path

from embedway.tokenizing import cl100k

RANKS_URL = "https://openaipublic.blob.core.windows.net/encodings/cl100k_base.tiktoken"
"""The URL that names the vocabulary in tiktoken's cache; nothing is loaded from it."""


def fill_cache(folder: Path) -> None:
    """Put the vocabulary of cl100k_base where tiktoken looks if TIKTOKEN_CACHE_DIR is `folder`."""
    name = hashlib.sha1(RANKS_URL.encode(), usedforsecurity=False).hexdigest()
    (folder / name).write_bytes(cl100k.RANKS.read_bytes())
