"""Defines what a job on a corpus is to do. It is stored, so that the job can go on with it."""

import hashlib
from pathlib import Path

import msgspec

from embedway.core.request import InputType, Truncate
from embedway.corpora.chunks import Chunking
from embedway.corpora.sinks.registry import parse_target
from embedway.corpora.source import SourceOptions


class ModelOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The model that embeds a corpus, and what is asked of it."""

    name: str
    url: str | None = None
    """The gateway to ask; None for a model without one."""
    dimensions: int | None = None
    truncate: Truncate = "none"
    input_type: InputType = "document"


class JobOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a job needs to go on."""

    source: SourceOptions
    model: ModelOptions
    to: str
    chunking: Chunking | None = None
    parallel: int | None = None
    budget_usd: str | None = None
    sync: bool = False

    @property
    def shown_sink(self) -> str:
        """The sink without a user and password, for messages."""
        return parse_target(self.to).shown

    @property
    def id(self) -> str:
        """The job's id, which follows from where rows come from and where they go."""
        facts = msgspec.json.encode([self.source.place, self.source.where, self.to])
        return f"job_{hashlib.sha256(facts).hexdigest()[:8]}"


def absolute(place: str) -> str:
    """Return a place that means the same in every folder."""
    return place if "://" in place else str(Path(place).absolute())
