"""Parses the parameters of the usage and costs endpoints, and the cursors of their pages."""

import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from hashlib import blake2b
from typing import Annotated, Any, ClassVar, Literal
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from embedway.core.errors import InvalidRequest, quote_value
from embedway.ledger import buckets
from embedway.ledger.buckets import TimeSpan
from embedway.ledger.query import METADATA, Dimension, UsageFilter, UsageQuery

MAX_TIME_S = 32_503_680_000
"""The year 3000. A larger number is probably a time in milliseconds."""
MAX_GROUPS = 8
MAX_VALUES = 500
"""The most values of all filters together."""
MAX_METADATA_KEY = 64

_POSITION = struct.Struct(">QQ")
_CHECKSUM_BYTES = 8  # with the position, a multiple of three: base64 without padding
_GROUPS: dict[str, Dimension] = {
    "project_id": "project_id",
    "user_id": "end_user",
    "api_key_id": "key_id",
    "model": "model",
    "provider": "provider",
}
_LIMITS = {"1d": (7, 31), "1h": (24, 168), "1m": (60, 1440)}


def _whole_number(value: str) -> int | None:
    # int() is slow for very long input, and accepts digits of other scripts.
    plain = value.isascii() and value.isdigit() and len(value) <= len(str(MAX_TIME_S))
    return int(value) if plain else None


def _seconds(value: str) -> int:
    seconds = _whole_number(value)
    if seconds is None or seconds > MAX_TIME_S:
        raise ValueError(f"send a Unix time in seconds, a whole number from 0 to {MAX_TIME_S}")
    return seconds


def _zone(value: str) -> str:
    if value not in buckets.time_zones():
        raise ValueError("send a name of the IANA database, such as Europe/Berlin")
    return value


Seconds = Annotated[int, BeforeValidator(_seconds)]
Zone = Annotated[str, AfterValidator(_zone)]


def _filter(group: str) -> Any:
    return Field(default=[], description=f"Only usage whose {group} is one of these.")


def _group_by(groups: Mapping[str, Dimension], more: str = "") -> Any:
    return Field(default=[], description=f"One or more of {', '.join(groups)}{more}.")


_OR_METADATA = ", and `metadata.` with a key of requests' metadata"


class UsageRequest(BaseModel):
    """The parameters that all usage endpoints take."""

    groups: ClassVar[Mapping[str, Dimension]]
    filters: ClassVar[Mapping[str, Dimension]]
    limits: ClassVar[Mapping[str, tuple[int, int]]] = _LIMITS
    """The default and the largest number of buckets on a page, by their width."""

    start_time: Annotated[
        Seconds, Field(description="Start of the report in Unix seconds, inclusive. Required.")
    ]
    end_time: Annotated[
        Seconds | None,
        Field(description="End of the report in Unix seconds, exclusive; default now."),
    ] = None
    bucket_width: Annotated[
        Literal["1m", "1h", "1d"], Field(description="`1m`, `1h` or `1d`; default `1d`.")
    ] = "1d"
    limit: Annotated[int | None, Field(description="How many buckets a page has.")] = None
    page: Annotated[
        str | None,
        Field(description="`next_page` of the previous page. Keep all other parameters the same."),
    ] = None
    time_zone: Annotated[
        Zone,
        Field(
            description="The time zone of days and hours, such as `Europe/Berlin`; default `UTC`."
        ),
    ] = "UTC"
    group_by: list[str]
    project_ids: list[str] = _filter("project_id")
    api_key_ids: list[str] = _filter("api_key_id")

    @property
    def query(self) -> UsageQuery:
        """What to sum up, by which groups and filters."""
        parameters = {name: getattr(self, name) for name in self.filters} | (self.model_extra or {})
        return UsageQuery(
            group_by=tuple(dict.fromkeys(self.groups.get(each, each) for each in self.group_by)),
            filters=tuple(
                UsageFilter(self.filters.get(name, name), tuple(dict.fromkeys(values)))
                for name, values in parameters.items()
                if values
            ),
            width=self.bucket_width,
            zone=ZoneInfo(self.time_zone),
        )

    @property
    def page_size(self) -> int:
        """The number of buckets on a page."""
        return self.limit or self.limits[self.bucket_width][0]

    def span(self, *, now_ms: int) -> TimeSpan:
        """Return the time from the first bucket of this page to the end of the last page.

        Raises:
            InvalidRequest: The start is not before the end, or `page` is from another query.
        """
        # Include the current second.
        end_s = now_ms // 1000 + 1 if self.end_time is None else self.end_time
        if self.start_time >= end_s:
            raise InvalidRequest(
                f"'start_time' is {self.start_time}, which is not before the end, {end_s}. "
                "Send an earlier one, or a later 'end_time'.",
                param="start_time",
            )
        if self.page is None:
            return TimeSpan(self.start_time * 1000, end_s * 1000)
        try:
            position = urlsafe_b64decode(self.page)[: _POSITION.size]
            span = TimeSpan(*_POSITION.unpack(position))
        except (ValueError, struct.error):
            span = TimeSpan(0, 0)
        is_valid = self.start_time * 1000 <= span.start_ms < span.end_ms <= MAX_TIME_S * 1000
        if not is_valid or self.page != self.cursor(span):
            raise InvalidRequest(
                f"'page' is {quote_value(self.page)}, which is no page of this query. "
                "Send 'next_page' unchanged, with all other parameters as before, or leave 'page' "
                "out to start again.",
                param="page",
            )
        return span

    def cursor(self, rest: TimeSpan) -> str:
        """Return the `page` that continues with `rest`.

        Its checksum covers the parameters that must stay the same. It needs no secret: a forged
        cursor returns only data that the query may read anyway.
        """
        query, position = self.query, _POSITION.pack(rest.start_ms, rest.end_ms)
        filters = sorted((each.dimension, sorted(each.values)) for each in query.filters)
        unchanged = (type(self).__name__, self.start_time, self.end_time, self.bucket_width,
                self.time_zone, self.group_by, filters)  # fmt: skip
        checksum = blake2b(position + repr(unchanged).encode(), digest_size=_CHECKSUM_BYTES)
        return urlsafe_b64encode(position + checksum.digest()).decode()

    @model_validator(mode="before")
    @classmethod
    def _join_lists(cls, parameters: Mapping[str, str | list[str]]) -> dict[str, Any]:
        """Read `name[]` as `name`, and each filter by metadata as a list."""
        joined: dict[str, Any] = {}
        for name, value in parameters.items():
            plain, values = name.removesuffix("[]"), [value] if isinstance(value, str) else value
            if any("\0" in each for each in values):
                raise InvalidRequest(f"{plain!r} contains a NUL. Leave it out.", param=plain)
            if plain not in cls.model_fields:
                cls._check_group(plain)
            one = name in cls.model_fields and isinstance(value, str)
            joined[plain] = value if one else [*joined.get(plain, ()), *values]
        filters = [name for name in joined if name in cls.filters or name not in cls.model_fields]
        count = sum(len(joined[name]) for name in filters)
        if count > MAX_VALUES:
            raise InvalidRequest(
                f"There are {count} values to filter by; the most is {MAX_VALUES}. Send fewer at a "
                "time."
            )
        return joined

    @field_validator("bucket_width", mode="before")
    @classmethod
    def _check_width(cls, value: str) -> str:
        if value not in cls.limits:
            raise ValueError(f"send one of {', '.join(cls.limits)}")
        return value

    @field_validator("limit", mode="before")
    @classmethod
    def _check_limit(cls, value: str, info: ValidationInfo) -> int:
        width = info.data.get("bucket_width", "1d")
        limit, most = _whole_number(value), cls.limits[width][1]
        if limit is None or not 1 <= limit <= most:
            raise ValueError(
                f"send a whole number from 1 to {most}, which is the most for buckets of {width}"
            )
        return limit

    @field_validator("group_by")
    @classmethod
    def _check_groups(cls, names: list[str]) -> list[str]:
        names = list(dict.fromkeys(names))
        if len(names) > MAX_GROUPS:
            raise InvalidRequest(
                f"'group_by' names {len(names)} groups; the most is {MAX_GROUPS}. Send fewer.",
                param="group_by",
            )
        for each in names:
            if each not in cls.groups:
                cls._check_group(each)
        return names

    @classmethod
    def _check_group(cls, name: str) -> None:
        """Check a name that is not a field: a key of metadata, if the endpoint allows that."""
        metadata = cls.model_config.get("extra") == "allow"
        if not metadata or not name.startswith(METADATA):
            choices = ", ".join(cls.groups) + (" and metadata.KEY" if metadata else "")
            raise InvalidRequest(
                f"'group_by' is {quote_value(name)}. Send one of {choices}.", param="group_by"
            )
        if not 1 <= len(name.removeprefix(METADATA)) <= MAX_METADATA_KEY or "\0" in name:
            raise InvalidRequest(
                f"{quote_value(name)} names no key of metadata: those have 1 to {MAX_METADATA_KEY} "
                "characters.",
                param="group_by",
            )


class EmbeddingsUsageRequest(UsageRequest):
    """The parameters of embeddings usage, including filters such as `metadata.KEY`."""

    model_config = ConfigDict(extra="allow")

    groups = _GROUPS
    filters: ClassVar[Mapping[str, Dimension]] = {f"{name}s": of for name, of in _GROUPS.items()}

    group_by: list[str] = _group_by(_GROUPS, _OR_METADATA)
    user_ids: list[str] = _filter("user_id")
    models: list[str] = _filter("model")
    providers: list[str] = _filter("provider")


class CostsRequest(EmbeddingsUsageRequest):
    """The parameters of costs."""

    groups: ClassVar[Mapping[str, Dimension]] = _GROUPS | {"line_item": "model"}
    filters: ClassVar[Mapping[str, Dimension]] = {f"{name}s": of for name, of in groups.items()}
    limits: ClassVar[Mapping[str, tuple[int, int]]] = _LIMITS | {"1d": (7, 180)}

    group_by: list[str] = _group_by(groups, _OR_METADATA)
    line_items: list[str] = _filter("line_item")


class RefusalsRequest(UsageRequest):
    """The parameters of refused requests."""

    groups: ClassVar[Mapping[str, Dimension]] = {
        "project_id": "project_id",
        "api_key_id": "key_id",
        "reason": "reason",
    }
    filters: ClassVar[Mapping[str, Dimension]] = {f"{name}s": of for name, of in groups.items()}

    group_by: list[str] = _group_by(groups)
    reasons: list[str] = _filter("reason")
