"""Resolves names to deployments, including `auto` and the operator's aliases."""

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from embedway.catalog.deployment import Deployment
from embedway.core.space_id import SpaceId

AUTO = "auto"
MAX_ALIAS = 256
"""The most characters of an alias, since a request's `model` has no more."""


class CatalogError(ValueError):
    """The settings for names or models are impossible; the message says why, and the cure."""

    def __init__(self, message: str, *, setting: Literal["auto", "aliases", "models"]) -> None:
        super().__init__(message)
        self.setting = setting
        """The setting at fault."""


class ResolvedName(msgspec.Struct, frozen=True, kw_only=True):
    """The deployments that a name stands for."""

    deployments: Sequence[Deployment]
    """The deployments that may serve the name; at least one."""
    is_pinned: bool
    """Whether the name includes the provider. Its own space counts then, not the model's home."""
    is_ordered: bool = False
    """Whether to try them in this order, not by rank, because an alias lists several names."""


def flatten_aliases(aliases: Mapping[str, str | Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """Resolve each alias to the names it finally stands for, none of them an alias.

    Raises:
        CatalogError: An alias stands for itself, or for nothing.
    """
    flat: dict[str, tuple[str, ...]] = {}

    def resolve(name: str, path: tuple[str, ...]) -> tuple[str, ...]:
        if name not in aliases:
            return (name,)
        if name in path:
            chain = " -> ".join(map(repr, (*path, name)))
            raise alias_error(path[0], f"it ends where it began, {chain}. Name a model.")
        if name not in flat:
            value = aliases[name]
            names = (value,) if isinstance(value, str) else value
            if not names:
                raise alias_error(name, "it stands for nothing. Name a model.")
            nested = (resolve(each, (*path, name)) for each in names)
            flat[name] = tuple(dict.fromkeys(each for all in nested for each in all))
        return flat[name]

    return {alias: resolve(alias, ()) for alias in aliases}


def check_alias(alias: str, *, ids: Mapping[str, object]) -> None:
    """Raise `CatalogError` if the alias is not valid or is already another kind of name."""
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
    """Return what an alias of these names, in this order, stands for.

    Raises:
        CatalogError: Two of them are, or may be, in different vector spaces.
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
    by_id = {each.id: each for name in found.values() for each in name.deployments}
    return ResolvedName(
        deployments=tuple(by_id.values()), is_pinned=named.is_pinned, is_ordered=True
    )


def claimed_space(deployment: Deployment) -> SpaceId:
    """Return the space that a deployment claims by its declared facts, without a revision."""
    return deployment.space(revision="-")


def alias_error(alias: str, reason: str) -> CatalogError:
    """Return the error for an alias, or for `auto`."""
    if alias == AUTO:
        return CatalogError(f"auto: {reason}", setting="auto")
    return CatalogError(f"alias {alias!r}: {reason}", setting="aliases")
