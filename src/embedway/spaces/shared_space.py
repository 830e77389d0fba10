"""Whether a model's vectors are proven to be of another model's space, as its maker says.

Compares the stored references of both, so it asks nobody and cannot age: that deployments still
give the vectors of their reference is what `routing.spaces` watches.
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
    standard: Deployment | None = None
    """The deployment whose facts the other model's id stands for, if anybody serves it."""
    revision: str = ""
    """Revision of the other model's home space."""
    missing: bool = False
    """Whether the other model has no reference yet."""


def find_shared_spaces(
    known: SpaceRegistry, model: Model, revision: str, input_type: InputType | None
) -> SharedSpace | None:
    """What the canaries say of `model`'s claim; None if it makes none.

    Args:
        known: The references there are.
        model: The model.
        revision: Revision of the space of the model's vectors.
        input_type: What the vectors are for.
    """
    other = model.same_space_as
    if not other:
        return None
    standard = known.default_deployment(other)
    if standard is None:
        return SharedSpace(model=other, state="unproven", reason=f"no provider here has {other}")
    if root := standard.model.same_space_as:
        reason = f"{other} itself names {root}: name that instead"
        return SharedSpace(model=other, state="unproven", reason=reason)
    home = known.default_space(other)
    theirs = known.reference(other, home, input_type)
    ours = known.reference(model.id, revision, input_type)
    if theirs is None or ours is None or theirs.texts != ours.texts:
        lacking = other if theirs is None else model.id
        reason = f"no vectors of {lacking} to compare yet"
        if theirs and ours:
            reason = "their references are of different texts"
        return SharedSpace(
            model=other, state="unproven", reason=reason, standard=standard, revision=home,
            missing=theirs is None,
        )  # fmt: skip
    against = canaries.against_sharing(ours.vectors, theirs.vectors)
    return SharedSpace(
        model=other,
        state="differs" if against else "proven",
        reason=against,
        standard=standard,
        revision=home,
    )
