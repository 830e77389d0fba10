"""What a name stands for, and the names that an operator gives: `auto` and aliases."""

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from embedway.catalog.deployment import Deployment
from embedway.core.space_id import SpaceId

AUTO = "auto"
MAX_ALIAS = 256
"""Letters; a request names no model by more."""


class CatalogError(ValueError):
    """What an operator says of names or models cannot be; the message says why and the cure."""

    def __init__(self, message: str, *, setting: Literal["auto", "aliases", "models"]) -> None:
        super().__init__(message)
        self.setting = setting
        """What says so."""


class ResolvedName(msgspec.Struct, frozen=True, kw_only=True):
    """What a name stands for."""

    deployments: Sequence[Deployment]
    """Who may be asked, at least one."""
    is_pinned: bool
    """Whether the provider was named: its own space counts, not the model's home."""
    is_ordered: bool = False
    """Whether they are asked in this order, not ranked: the alias of several names."""


def flatten_aliases(aliases: Mapping[str, str | Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """Resolve each alias to the names it stands for in the end, none of them an alias.

    Raises:
        CatalogError: An alias stands for itself, or for nothing.
    """
    flat: dict[str, tuple[str, ...]] = {}

    def names(name: str, asked_by: tuple[str, ...]) -> tuple[str, ...]:
        if name not in aliases:
            return (name,)
        if name in asked_by:
            chain = " -> ".join(map(repr, (*asked_by, name)))
            raise alias_error(asked_by[0], f"it ends where it began, {chain}. Name a model.")
        if name not in flat:
            told = aliases[name]
            each_of = (told,) if isinstance(told, str) else told
            if not each_of:
                raise alias_error(name, "it stands for nothing. Name a model.")
            nested = (names(each, (*asked_by, name)) for each in each_of)
            flat[name] = tuple(dict.fromkeys(each for all in nested for each in all))
        return flat[name]

    return {alias: names(alias, ()) for alias in aliases}


def check_alias(alias: str, *, ids: Mapping[str, object]) -> None:
    """Raise `CatalogError` for an alias that is, or looks like, another kind of name."""
    if alias in ids:
        raise alias_error(alias, "a model has this id. Name the alias otherwise.")
    if alias == AUTO:
        raise CatalogError("auto is a setting of its own: auto = NAME.", setting="aliases")
    if not 1 <= len(alias) <= MAX_ALIAS or ":" in alias or not alias.isprintable():
        raise alias_error(
            alias,
            f"an alias is 1 to {MAX_ALIAS} printable characters without a colon, which comes "
            "after the name of a provider.",
        )


def join_names(alias: str, found: Mapping[str, ResolvedName]) -> ResolvedName:
    """What an alias of these names, in this order, stands for.

    Raises:
        CatalogError: Two of them are, or may be, of different vector spaces.
    """
    (first, named), *others = found.items()
    if not others:
        return named
    begin = named.deployments[0]
    for name, other in others:
        for each in other.deployments:
            if not (begin.model.declared and each.model.declared):
                unknown = name if begin.model.declared else first
                raise alias_error(
                    alias,
                    f"nobody declared {unknown!r}, so nothing says that the vectors of {first!r} "
                    f"and {name!r} can be compared. Declare it as a model of its provider, or name "
                    "one of them alone.",
                )
            if claimed_space(begin) != claimed_space(each):
                raise alias_error(
                    alias,
                    f"{first!r} and {name!r} are of different vector spaces; their vectors cannot "
                    "be compared. Name one of them, or deployments of one model.",
                )
    served = {each.id: each for each_of in found.values() for each in each_of.deployments}
    return ResolvedName(
        deployments=tuple(served.values()), is_pinned=named.is_pinned, is_ordered=True
    )


def claimed_space(served: Deployment) -> SpaceId:
    """The space a deployment claims to be of, whoever's: equal if its facts are."""
    return served.space(revision="-")


def alias_error(alias: str, reason: str) -> CatalogError:
    """The error for an alias, or for `auto`."""
    if alias == AUTO:
        return CatalogError(f"auto: {reason}", setting="auto")
    return CatalogError(f"alias {alias!r}: {reason}", setting="aliases")
