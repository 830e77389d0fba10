"""Describes the queries that a usage report may make, and their results."""

from collections.abc import Mapping
from typing import Literal
from zoneinfo import ZoneInfo

import msgspec

from embedway.core.money import NanoUsd
from embedway.ledger.buckets import Source, TimeSpan, Width

UTC = ZoneInfo("UTC")
REFUSAL_DIMENSIONS = frozenset(("project_id", "key_id", "reason"))
"""The columns that refused requests can be grouped and filtered by."""

Column = Literal["project_id", "key_id", "end_user", "model", "provider", "on_behalf_of", "reason"]
Dimension = str
"""A `Column`, or `metadata.` followed by a key of the requests' metadata."""
METADATA = "metadata."
"""The prefix of a metadata dimension."""

_RECORDS_ONLY = "on_behalf_of"
_ROLLED_UP: tuple[Source, ...] = ("days", "hours", "records")
_RECORDS: tuple[Source, ...] = ("records",)


class UsageFilter(msgspec.Struct, frozen=True):
    """Selects usage whose `dimension` is one of `values`; an empty value stands for none."""

    dimension: Dimension
    values: tuple[str, ...]


class UsageQuery(msgspec.Struct, frozen=True, kw_only=True):
    """What to sum up. The time is given separately."""

    group_by: tuple[Dimension, ...] = ()
    """The dimensions that each group shares, besides the bucket."""
    filters: tuple[UsageFilter, ...] = ()
    width: Width | None = None
    """The width of the buckets; None for one bucket."""
    zone: ZoneInfo = UTC
    """The time zone whose midnights and hours limit the buckets."""

    @property
    def dimensions(self) -> frozenset[Dimension]:
        """All dimensions that the query reads."""
        return frozenset((*self.group_by, *(each.dimension for each in self.filters)))

    @property
    def sources(self) -> tuple[Source, ...]:
        """The tables that can answer it, coarsest first."""
        needs_records = any(
            each == _RECORDS_ONLY or each.startswith(METADATA) for each in self.dimensions
        )
        return _RECORDS if needs_records else _ROLLED_UP


class UsageTotals(msgspec.Struct, frozen=True):
    """Sums over usage records. `UsageRecord` explains the fields that both have.

    `items`, all tokens and `cost_nano_usd` count requests that were answered with 200 only.
    """

    requests: int
    """Requests that were answered with 200."""
    errors: int
    """Well-formed requests that were answered with another status."""
    items: int
    tokens: int
    cached_tokens: int
    estimated_tokens: int
    """The part of `tokens` that is an estimate."""
    unpriced_tokens: int
    """The part of `tokens` that has no known price and is not in the costs."""
    cost_nano_usd: NanoUsd
    upstream_cost_nano_usd: NanoUsd
    calls: int
    failed_calls: int


class UsageGroup(msgspec.Struct, frozen=True):
    """The usage of one group in one bucket."""

    bucket: TimeSpan
    group: tuple[str | None, ...]
    """The group's value of each dimension in `UsageQuery.group_by`; None if it has none."""
    totals: UsageTotals


class RefusalGroup(msgspec.Struct, frozen=True):
    """The number of refused requests of one group in one bucket."""

    bucket: TimeSpan
    group: tuple[str | None, ...]
    """The group's value of each dimension, as in `UsageGroup`."""
    requests: int


class EntityNames(msgspec.Struct, frozen=True, kw_only=True):
    """The names of projects and keys, by id."""

    projects: Mapping[str, str]
    keys: Mapping[str, str]

    def label(self, group: Mapping[Dimension, str | None]) -> dict[Dimension, str | None]:
        """Return the names of the project and the key in `group`; None for one without a name."""
        names = {"project_id": self.projects, "key_id": self.keys}
        return {each: names[each].get(id or "") for each, id in group.items() if each in names}
