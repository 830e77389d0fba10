"""Builds dataclasses from decoded JSON.

Fields that a newer gateway adds are ignored. A field that may be None may also be missing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
from collections.abc import Callable, Generator
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from embedway_sdk.errors import InvalidResponseError
from embedway_sdk.http import httpx

T = TypeVar("T")


def reader(kind: type[T]) -> Callable[[httpx.Response], T]:
    """Return a function that reads an answer as `kind`, a dataclass.

    The function raises `InvalidResponseError` if the answer is no JSON of this form.
    """

    def read(response: httpx.Response) -> T:
        with reading(response):
            return load(kind, json.loads(response.content))

    return read


@contextlib.contextmanager
def reading(response: httpx.Response) -> Generator[None, None, None]:
    """Turn what goes wrong while an answer is read into an `InvalidResponseError`."""
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        path = response.request.url.path
        reason = f"{type(error).__name__}: {error}"
        message = f"The answer of {path} is not of the expected form ({reason})."
        raise InvalidResponseError(message) from None


def load(kind: Any, data: Any) -> Any:
    """Return decoded JSON as a value of the type `kind`."""
    origin = get_origin(kind)
    if origin in {Union, UnionType}:
        others = [each for each in get_args(kind) if each is not type(None)]
        return load(others[0], data) if data is not None and len(others) == 1 else data
    if origin is list:
        return [load(get_args(kind)[0], each) for each in data]
    base: Any = origin or kind
    if not hasattr(base, "__dataclass_fields__"):
        return data
    filled = dict(zip(getattr(base, "__parameters__", ()), get_args(kind), strict=False))
    values: dict[str, Any] = {}
    for field, hint in _fields(base):
        name = data.get(field.metadata["named_by"]) if field.metadata else field.name
        value = data.get(name)
        if value is None and type(None) not in get_args(hint):
            raise ValueError(f"{name} is missing")
        values[field.name] = load(_fill(hint, filled), value)
    return base(**values)


@functools.cache
def _fields(kind: Any) -> list[tuple[dataclasses.Field[Any], Any]]:
    hints = get_type_hints(kind)
    return [(each, hints[each.name]) for each in dataclasses.fields(kind)]


def _fill(hint: Any, filled: dict[Any, Any]) -> Any:
    """Return the hint with the parameters of its generic class filled in."""
    parameters = getattr(hint, "__parameters__", ())
    return (
        hint[tuple(filled[each] for each in parameters)] if parameters else filled.get(hint, hint)
    )
