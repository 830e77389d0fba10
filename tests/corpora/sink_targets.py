"""A sink of each kind to try, by the kind and perhaps what is special."""

import os
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

import pytest

TARGETS: Mapping[str, Callable[[pytest.FixtureRequest, Path], str]] = {
    "chroma": lambda _, folder: f"chroma:{folder}/vectors",
    "lance": lambda _, folder: f"lance:{folder}/vectors",
    "npy": lambda _, folder: f"npy:{folder}/vectors",
    "parquet": lambda _, folder: f"parquet:{folder}/vectors",
    "postgresql": lambda request, _: request.getfixturevalue("pgvector_url"),
    "qdrant": lambda _, folder: f"qdrant:{folder}/vectors",
    "milvus": lambda _, folder: f"milvus:{folder}/vectors.db",
}

PACKAGES: Mapping[str, str] = {
    "chroma": "chromadb",
    "lance": "lancedb",
    "milvus": "milvus_lite",
    "qdrant": "qdrant_client",
}
"""What each kind imports that `make dev` does not install."""


def lack_sink(name: str) -> NoReturn:
    """Skip the test because something is not installed, or fail if `make test-sinks` runs it."""
    reason = f"{name} is not installed: make test-sinks"
    if os.environ.get("EMBEDWAY_TEST_SINKS") == "required":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def target(kind: str, request: pytest.FixtureRequest, folder: Path) -> str:
    """Return the name of a new sink of this kind."""
    package = PACKAGES.get(kind)
    if package is not None and find_spec(package) is None:
        lack_sink(package)
    return TARGETS[kind](request, folder)
