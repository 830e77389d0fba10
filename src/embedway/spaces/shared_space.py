"""Tests a maker's claim that two models share a vector space, by their stored references.

Sends nothing. `spaces.membership` watches whether deployments still match their references.
"""

from typing import Literal

import msgspec

from embedway.catalog.deployment import Deployment
from embedway.catalog.model import Model
from embedway.core.request import InputType
from embedway.spaces import canaries
from embedway.spaces.registry import SpaceRegistry


class SharedSpace(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a model's claim to share another model's space."""

    model: str
    """Id of the other model."""
    state: Literal["proven", "unproven", "differs"]
    reason: str = ""
    """Why it is not proven, for people."""
    default_deployment: Deployment | None = None
    """The deployment that the other model's bare id stands for, if any."""
    revision: str = ""
    """Revision of the other model's home space."""
    is_reference_missing: bool = False
    """Whether the other model still lacks a reference."""


def find_shared_space(
    registry: SpaceRegistry, model: Model, revision: str, input_type: InputType | None
) -> SharedSpace | None:
    """Test `model`'s claim for its space of this revision; None if it makes no claim."""
    other = model.same_space_as
    if not other:
        return None
    standard = registry.default_deployment(other)
    if standard is None:
        return SharedSpace(model=other, state="unproven", reason=f"no provider here has {other}")
    if root := standard.model.same_space_as:
        reason = f"{other} itself names {root}: name that instead"
        return SharedSpace(model=other, state="unproven", reason=reason)
    home = registry.default_space(other)
    theirs = registry.reference(other, home, input_type)
    ours = registry.reference(model.id, revision, input_type)
    if theirs is None or ours is None or theirs.texts != ours.texts:
        missing = other if theirs is None else model.id
        reason = f"no vectors of {missing} to compare yet"
        if theirs and ours:
            reason = "their references are of different texts"
        return SharedSpace(
            model=other,
            state="unproven",
            reason=reason,
            default_deployment=standard,
            revision=home,
            is_reference_missing=theirs is None,
        )
    difference = canaries.describe_difference(ours.vectors, theirs.vectors)
    return SharedSpace(
        model=other,
        state="differs" if difference else "proven",
        reason=difference,
        default_deployment=standard,
        revision=home,
    )
