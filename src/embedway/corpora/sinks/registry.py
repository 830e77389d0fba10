"""Opens the sink that `--to` or `--in` names."""

import re
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import cast

import msgspec

from embedway.core import extras
from embedway.core.extras import Extra
from embedway.corpora.sinks.sink import Sink, SinkError

_CREDENTIALS = re.compile(r"//[^/]*@")
DEFAULT_COLLECTION = "corpus"
"""The collection or table if a sink's name has none."""


class SinkTarget(msgspec.Struct, frozen=True):
    """The name of a sink, in parts: `KIND:PLACE#COLLECTION`."""

    kind: str
    place: str
    """A folder, a file or an address."""
    collection: str = DEFAULT_COLLECTION

    def __str__(self) -> str:
        start = "" if self.kind == "postgresql" else f"{self.kind}:"
        end = "" if self.collection == DEFAULT_COLLECTION else f"#{self.collection}"
        return f"{start}{self.place}{end}"

    @property
    def shown(self) -> str:
        """The name without a user and password, for messages."""
        return _CREDENTIALS.sub("//", str(self))

    def absolute(self) -> "SinkTarget":
        """Return a target that means the same in every folder."""
        if "://" in self.place:
            return self
        return SinkTarget(self.kind, str(Path(self.place).absolute()), self.collection)


class SinkKind(msgspec.Struct, frozen=True):
    """One kind of sink."""

    opener: str
    """`module:class` in this package; the class takes a `SinkTarget`."""
    extra: Extra | None
    """What is installed for it; None if nothing is."""
    example: str


KINDS: Mapping[str, SinkKind] = {
    "parquet": SinkKind("parquet:ParquetSink", "parquet", "parquet:vectors"),
    "npy": SinkKind("npy:NpySink", None, "npy:vectors"),
    "lance": SinkKind("lance:LanceSink", "lance", "lance:vectors#docs"),
    "qdrant": SinkKind("qdrant:QdrantSink", "qdrant", "qdrant:http://localhost:6333#docs"),
    "chroma": SinkKind("chroma:ChromaSink", "chroma", "chroma:http://localhost:8000#docs"),
    "milvus": SinkKind("milvus:MilvusSink", "milvus", "milvus:vectors.db#docs"),
    "postgresql": SinkKind(
        "pgvector:PgvectorSink", "postgres", "postgresql://user:password@host/db#docs"
    ),
}
"""Every kind of sink by the word before the colon."""


def parse_target(name: str) -> SinkTarget:
    """Return the parts of a sink's name.

    Raises:
        SinkError: There is no such kind of sink, or the name is incomplete.
    """
    kind, separator, rest = name.partition(":")
    if not separator and name.endswith(".parquet"):
        kind, rest = "parquet", name
    if kind == "postgres":
        kind, name = "postgresql", f"postgresql:{rest}"
    if kind not in KINDS:
        examples = ", ".join(each.example for each in KINDS.values())
        raise SinkError(
            f"{_CREDENTIALS.sub('//', name)!r} names no sink. Write it as one of these: {examples}."
        )
    place, _, collection = (name if kind == "postgresql" else rest).partition("#")
    if not place:
        raise SinkError(f"{name!r} says no place. Write it as {KINDS[kind].example}.")
    return SinkTarget(kind, place, collection or DEFAULT_COLLECTION)


def open_sink(target: SinkTarget) -> Sink:
    """Open a sink.

    Raises:
        MissingExtra: What it needs is not installed.
        SinkError: It cannot be opened.
    """
    kind = KINDS[target.kind]
    module, _, name = kind.opener.partition(":")
    if kind.extra is None:
        opener = getattr(import_module(f"embedway.corpora.sinks.{module}"), name)
    else:
        with extras.importing(kind.extra, f"The sink {target.kind!r}"):
            opener = getattr(import_module(f"embedway.corpora.sinks.{module}"), name)
    return cast("Sink", opener(target))
