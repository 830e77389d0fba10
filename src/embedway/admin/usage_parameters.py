"""The parameters of the usage and costs endpoints: what may be asked, and the cursors of pages.

Owns their names, bounds and errors. Knows nothing of who asks and of what is answered.
"""

import hashlib
import hmac
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as NotBase64
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast
from zoneinfo import ZoneInfo

import msgspec

from embedway.core import buckets
from embedway.core.buckets import Span, Width
from embedway.core.errors import InvalidRequest, shown
from embedway.core.report import METADATA, Dimension, Filter, Query

MAX_TIME_S = 32_503_680_000
"""The year 3000: a larger number is of milliseconds."""
MAX_GROUPS = 8
MAX_VALUES = 500
"""Of all filters together."""
MAX_METADATA_KEY = 64

_SEAL_BYTES = 16
_POSITION = struct.Struct(">QQ")

_GROUPS: dict[str, Dimension] = {
    "project_id": "project_id",
    "user_id": "end_user",
    "api_key_id": "key_id",
    "model": "model",
    "provider": "provider",
}
_FILTERS: dict[str, Dimension] = {f"{name}s": of for name, of in _GROUPS.items()}
_LIMITS: dict[Width, tuple[int, int]] = {"1d": (7, 31), "1h": (24, 168), "1m": (60, 1440)}
_SINGLE = {
    "start_time": "From this second on, in Unix time. Required.",
    "end_time": "Up to but without this second; now if left out.",
    "bucket_width": "`1m`, `1h` or `1d`; `1d` if left out.",
    "limit": "How many buckets a page has.",
    "page": "`next_page` of the page before, with all other parameters as they were.",
    "time_zone": "Whose days and hours, such as `Europe/Berlin`; `UTC` if left out.",
}


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """What differs between the endpoints."""

    name: str
    groups: Mapping[str, Dimension]
    filters: Mapping[str, Dimension]
    limits: Mapping[Width, tuple[int, int]]
    """How many buckets a page has if nobody says, and at most."""
    metadata: bool = True
    """Whether requests' metadata can be grouped and filtered by."""

    def choices(self, names: Iterable[str]) -> str:
        """These names and, where it is possible, metadata, for a message."""
        return ", ".join(names) + (" and metadata.KEY" if self.metadata else "")


EMBEDDINGS = Endpoint(
    name="embeddings",
    groups=_GROUPS,
    filters=_FILTERS,
    limits=_LIMITS,
)
COSTS = Endpoint(
    name="costs",
    groups=_GROUPS | {"line_item": "model"},
    filters=_FILTERS | {"line_items": "model"},
    limits={**_LIMITS, "1d": (7, 180)},
)
REFUSALS = Endpoint(
    name="refusals",
    groups={"project_id": "project_id", "api_key_id": "key_id", "reason": "reason"},
    filters={"project_ids": "project_id", "api_key_ids": "key_id", "reasons": "reason"},
    limits=_LIMITS,
    metadata=False,
)


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """One request, read."""

    query: Query
    names: tuple[str, ...]
    """The groups as the client calls them."""
    span: Span
    """From the first bucket of this page to the end of the last page."""
    limit: int
    identity: bytes
    """What must be the same on each page."""

    def cursor(self, next_ms: int, page_key: bytes) -> str:
        """The `page` of the page that begins at `next_ms`."""
        position = _POSITION.pack(next_ms, self.span.end_ms)
        sealed = position + _seal(position, self.identity, page_key)
        return urlsafe_b64encode(sealed).rstrip(b"=").decode()


def read(
    parameters: Iterable[tuple[str, str]], endpoint: Endpoint, *, now_ms: int, page_key: bytes
) -> Asked:
    """What these parameters of `endpoint` ask for.

    Args:
        parameters: Names and values as they came; `name[]` is `name`.
        endpoint: Whose they are.
        now_ms: The end, if none is named; milliseconds since 1970-01-01 UTC.
        page_key: A secret of the installation, which cursors are sealed with.

    Raises:
        InvalidRequest: One is missing, unknown, or not possible.
    """
    given = _by_name(parameters, endpoint)
    start_ms, named_end_ms = _time_ms("start_time", given), _time_ms("end_time", given)
    if start_ms is None:
        raise InvalidRequest(
            "'start_time' is missing. Send a Unix time in seconds.", param="start_time"
        )
    width = _width(given, endpoint)
    names = _groups(given, endpoint)
    query = Query(
        by=tuple(dict.fromkeys(_dimension(each, endpoint) for each in names)),
        where=tuple(_filters(given, endpoint)),
        width=width,
        zone=_zone(given),
    )
    identity = msgspec.msgpack.encode(
        (endpoint.name, start_ms, named_end_ms, width, query.zone.key, names,
         sorted((each.of, sorted(each.values)) for each in query.where))
    )  # fmt: skip
    # The second that has begun is part of it.
    end_ms = (now_ms // 1000 + 1) * 1000 if named_end_ms is None else named_end_ms
    if start_ms >= end_ms:
        raise InvalidRequest(
            f"'start_time' is {start_ms // 1000}, which is not before the end, {end_ms // 1000}. "
            "Send an earlier one, or a later 'end_time'.",
            param="start_time",
        )
    span = _from_page(given, identity, page_key) or Span(start_ms, end_ms)
    limit = _limit(given, endpoint.limits[width], width)
    return Asked(query=query, names=names, span=span, limit=limit, identity=identity)


def described(endpoint: Endpoint) -> dict[str, Any]:
    """The parameters in OpenAPI."""
    listed = {
        "group_by": f"One or more of {', '.join(endpoint.groups)}"
        + (", and `metadata.` with a key of requests' metadata." if endpoint.metadata else "."),
        **{
            name: f"Only usage whose {name.removesuffix('s')} is one of these."
            for name in endpoint.filters
        },
    }
    integers = ("start_time", "end_time", "limit")
    texts = {"type": "array", "items": {"type": "string"}}
    return {
        "parameters": [
            *(
                {
                    "name": name,
                    "in": "query",
                    "required": name == "start_time",
                    "description": text,
                    "schema": {"type": "integer" if name in integers else "string"},
                }
                for name, text in _SINGLE.items()
            ),
            *(
                {"name": name, "in": "query", "description": text, "schema": texts}
                for name, text in listed.items()
            ),
        ]
    }


def _by_name(parameters: Iterable[tuple[str, str]], endpoint: Endpoint) -> dict[str, list[str]]:
    given: dict[str, list[str]] = {}
    for name, value in parameters:
        plain = name.removesuffix("[]")
        _check_name(plain, endpoint)
        if "\0" in value:
            raise InvalidRequest(f"{plain!r} holds a NUL. Leave it out.", param=plain)
        values = given.setdefault(plain, [])
        if values and plain in _SINGLE:
            raise InvalidRequest(f"{plain!r} is there twice. Send one.", param=plain)
        values.append(value)
    count = sum(len(values) for name, values in given.items() if name != "group_by")
    if count > MAX_VALUES:
        raise InvalidRequest(
            f"There are {count} values to filter by, at most {MAX_VALUES} are possible. Ask for "
            "some of them at a time."
        )
    return given


def _check_name(name: str, endpoint: Endpoint) -> None:
    if name in _SINGLE or name == "group_by" or name in endpoint.filters:
        return
    if name.startswith(METADATA) and endpoint.metadata:
        _dimension(name, endpoint)
        return
    known = endpoint.choices([*_SINGLE, "group_by", *endpoint.filters])
    raise InvalidRequest(
        f"{shown(name)} is no parameter of this. There are {known}.",
        param=name,
    )


def _time_ms(name: str, given: Mapping[str, Sequence[str]]) -> int | None:
    if name not in given:
        return None
    [value] = given[name]
    seconds = _whole(value)
    if seconds is None or seconds > MAX_TIME_S:
        raise InvalidRequest(
            f"{name!r} is {shown(value)}. Send a Unix time in seconds, a whole number from 0 to "
            f"{MAX_TIME_S}.",
            param=name,
        )
    return seconds * 1000


def _whole(value: str) -> int | None:
    # More digits than any number that is possible here; int() takes its time for very many.
    usual = value.isascii() and value.isdigit() and len(value) <= len(str(MAX_TIME_S))
    return int(value) if usual else None


def _width(given: Mapping[str, Sequence[str]], endpoint: Endpoint) -> Width:
    [value] = given.get("bucket_width", ["1d"])
    if value not in endpoint.limits:
        raise InvalidRequest(
            f"'bucket_width' is {shown(value)}. Send one of {', '.join(endpoint.limits)}.",
            param="bucket_width",
        )
    return cast("Width", value)


def _limit(given: Mapping[str, Sequence[str]], limits: tuple[int, int], width: Width) -> int:
    usual, most = limits
    if "limit" not in given:
        return usual
    [value] = given["limit"]
    limit = _whole(value)
    if limit is None or not 1 <= limit <= most:
        raise InvalidRequest(
            f"'limit' is {shown(value)}. Send a whole number from 1 to {most}, which is the most "
            f"for buckets of {width}.",
            param="limit",
        )
    return limit


def _zone(given: Mapping[str, Sequence[str]]) -> ZoneInfo:
    [value] = given.get("time_zone", ["UTC"])
    if value not in buckets.zones():
        raise InvalidRequest(
            f"'time_zone' is {shown(value)}. Send a name of the IANA database, such as "
            "Europe/Berlin.",
            param="time_zone",
        )
    return ZoneInfo(value)


def _groups(given: Mapping[str, Sequence[str]], endpoint: Endpoint) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(given.get("group_by", ())))
    if len(names) > MAX_GROUPS:
        raise InvalidRequest(
            f"'group_by' names {len(names)} groups, at most {MAX_GROUPS} are possible.",
            param="group_by",
        )
    for name in names:
        _dimension(name, endpoint)
    return names


def _dimension(name: str, endpoint: Endpoint) -> Dimension:
    key = name.removeprefix(METADATA)
    if name.startswith(METADATA) and endpoint.metadata:
        if 1 <= len(key) <= MAX_METADATA_KEY and "\0" not in key:
            return name
        raise InvalidRequest(
            f"{shown(name)} names no key of metadata: those have 1 to {MAX_METADATA_KEY} "
            "characters.",
            param="group_by",
        )
    if name not in endpoint.groups:
        raise InvalidRequest(
            f"'group_by' is {shown(name)}. Send one of {endpoint.choices(endpoint.groups)}.",
            param="group_by",
        )
    return endpoint.groups[name]


def _filters(given: Mapping[str, Sequence[str]], endpoint: Endpoint) -> Iterable[Filter]:
    for name, values in given.items():
        if name in endpoint.filters or name.startswith(METADATA):
            yield Filter(endpoint.filters.get(name, name), tuple(dict.fromkeys(values)))


def _from_page(given: Mapping[str, Sequence[str]], identity: bytes, page_key: bytes) -> Span | None:
    if "page" not in given:
        return None
    [value] = given["page"]
    try:
        sealed = urlsafe_b64decode(value + "=" * (-len(value) % 4))
    except (NotBase64, ValueError):
        sealed = b""
    position, seal = sealed[: _POSITION.size], sealed[_POSITION.size :]
    if not hmac.compare_digest(seal, _seal(position, identity, page_key)):
        raise InvalidRequest(
            f"'page' is {shown(value)}, which is no page of this query. Send 'next_page' as it "
            "came and all other parameters as they were, or leave 'page' out to begin again.",
            param="page",
        )
    return Span(*_POSITION.unpack(position))


def _seal(position: bytes, identity: bytes, page_key: bytes) -> bytes:
    digest = hmac.digest(page_key, b"embedway usage page" + position + identity, hashlib.sha256)
    return digest[:_SEAL_BYTES]
