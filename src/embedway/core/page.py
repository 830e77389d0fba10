"""Defines a page of a long list."""

from typing import Generic, TypeVar

import msgspec

Item = TypeVar("Item")


class Page(msgspec.Struct, Generic[Item], frozen=True):
    """Some items in order. `more` says whether others follow the last of them."""

    items: tuple[Item, ...]
    more: bool
