"""Names the extra of Embedway that a feature needs, where its packages are not installed."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Literal

Extra = Literal[
    "bedrock",
    "chroma",
    "lance",
    "milvus",
    "otel",
    "parquet",
    "postgres",
    "qdrant",
    "redis",
    "vertex",
]
"""A group of optional packages, as pyproject.toml names it."""


class MissingExtra(ImportError):
    """A feature needs packages that are not installed. The message says how to install them."""

    def __init__(self, extra: Extra, feature: str) -> None:
        super().__init__(
            f"{feature} needs packages that are not installed here. Run: "
            f"pip install 'embedway[{extra}]'"
        )


@contextmanager
def importing(extra: Extra, feature: str) -> Generator[None]:
    """Import the packages of `extra` in this context, for `feature`, which begins the message.

    Raises:
        MissingExtra: They cannot be imported.
    """
    try:
        yield
    except ImportError as error:
        raise MissingExtra(extra, feature) from error
