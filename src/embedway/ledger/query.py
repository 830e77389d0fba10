"""What may be asked of the ledger, and what it answers: usage by time and by whom."""

from collections.abc import Mapping
from typing import Literal
from zoneinfo import ZoneInfo

import msgspec

from embedway.core.money import NanoUsd
from embedway.ledger.buckets import Source, TimeSpan, Width

UTC = ZoneInfo("UTC")
OF_REFUSALS = frozenset(("project_id", "key_id", "reason"))
"""What refused requests can be grouped and filtered by."""

Column = Literal["project_id", "key_id", "end_user", "model", "provider", "on_behalf_of", "reason"]
Dimension = str
"""A `Column`, or `metadata.` and a key of requests' metadata."""
METADATA = "metadata."

_OF_LINES_ONLY = "on_behalf_of"
_ROLLED_UP: tuple[Source, ...] = ("days", "hours", "lines")
_LINES: tuple[Source, ...] = ("lines",)


class UsageFilter(msgspec.Struct, frozen=True):
    """Only usage where `of` is one of `values`; an empty value stands for none."""

    of: Dimension
    values: tuple[str, ...]


class UsageQuery(msgspec.Struct, frozen=True, kw_only=True):
    """What to sum, but for the time."""

    by: tuple[Dimension, ...] = ()
    """What each group has in common, beside the bucket."""
    where: tuple[UsageFilter, ...] = ()
    width: Width | None = None
    """Of the buckets; None for one bucket."""
    zone: ZoneInfo = UTC
    """Where midnight and full hours are."""

    @property
    def dimensions(self) -> frozenset[Dimension]:
        """All that the rows it reads must have."""
        return frozenset((*self.by, *(each.of for each in self.where)))

    @property
    def sources(self) -> tuple[Source, ...]:
        """What it may be read from, coarsest first."""
        lines = any(each.startswith(METADATA) for each in self.dimensions)
        return _LINES if lines or _OF_LINES_ONLY in self.dimensions else _ROLLED_UP


class UsageTotals(msgspec.Struct, frozen=True):
    """Sums over ledger lines; `embedway.core.usage` says what each is of a line."""

    requests: int
    """Answered with 200."""
    errors: int
    """Well-formed requests that were answered with anything else."""
    items: int
    """This and all that follow, but for the last three, of answered requests only."""
    tokens: int
    cached_tokens: int
    estimated_tokens: int
    """Of `tokens`, how many are an estimate."""
    unpriced_tokens: int
    """Of `tokens`, how many have no known price, and so cost nothing here."""
    cost_nano_usd: NanoUsd
    upstream_cost_nano_usd: NanoUsd
    calls: int
    failed_calls: int


class UsageGroup(msgspec.Struct, frozen=True):
    """What one group used in one bucket."""

    bucket: TimeSpan
    group: tuple[str | None, ...]
    """Its value of each of `UsageQuery.by`; None where there is none."""
    figures: UsageTotals


class RefusalGroup(msgspec.Struct, frozen=True):
    """How many requests of one group were refused in one bucket."""

    bucket: TimeSpan
    group: tuple[str | None, ...]
    """As in `Usage`."""
    requests: int


class EntityNames(msgspec.Struct, frozen=True, kw_only=True):
    """The names of projects and keys, by their ids."""

    projects: Mapping[str, str]
    keys: Mapping[str, str]

    def label(self, group: Mapping[Dimension, str | None]) -> dict[Dimension, str | None]:
        """The names of the project and the key in `group`; None for what has none."""
        by = {"project_id": self.projects, "key_id": self.keys}
        return {of: by[of].get(id or "") for of, id in group.items() if of in by}
