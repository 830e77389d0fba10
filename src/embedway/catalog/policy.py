"""Defines the operator's policy for a model: its providers, and the reference for its space."""

from collections.abc import Mapping, Sequence

import msgspec

from embedway.catalog.deployment import Deployment
from embedway.catalog.model import LOCAL
from embedway.catalog.resolved_name import CatalogError, claimed_space
from embedway.core.vectors import Vectors


class SuppliedCanaries(msgspec.Struct, frozen=True, kw_only=True):
    """Texts that the operator supplies, with the vectors that the model gives them."""

    texts: tuple[str, ...]
    vectors: Vectors
    """The vectors of the texts, in the same order."""
    digest: str
    """The first 12 hex digits of the file's SHA-256."""


class ModelPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """The operator's policy for one model."""

    order: tuple[str, ...] = ()
    """The providers to try first, in this order, whatever the request's preference."""
    weights: Mapping[str, float] = {}
    """How often each provider goes first among those that rank equally; 1 if not set, 0 for a
    provider to use only when no other is left."""
    only: tuple[str, ...] = ()
    """The providers to use, and no others; empty for all."""
    reference: str | None = None
    """The provider whose vectors define the model's space."""
    canaries: SuppliedCanaries | None = None
    """Texts and vectors that define the space instead."""
    min_cosine: float = 0.999
    """The lowest cosine to the reference at which a provider's vectors agree."""


def default_deployment(deployments: Sequence[Deployment], policy: ModelPolicy) -> Deployment:
    """Return the deployment whose facts a model's bare id stands for."""
    pinned = (policy.reference,) if policy.reference else policy.only
    return next((each for each in deployments if each.provider in pinned), deployments[0])


def same_space(deployments: Sequence[Deployment], policy: ModelPolicy) -> tuple[Deployment, ...]:
    """Return the deployments that a bare id may mean: those declared with the same facts."""
    space = claimed_space(default_deployment(deployments, policy))
    return tuple(each for each in deployments if claimed_space(each) == space)


def check_policy(id: str, policy: ModelPolicy, deployments: Sequence[Deployment]) -> None:
    """Raise `CatalogError` if the policy does not fit the model's deployments."""
    providers = [each.provider for each in deployments]
    reference = (policy.reference,) if policy.reference else ()
    for setting, named in (
        ("order", policy.order),
        ("weights", policy.weights),
        ("only", policy.only),
        ("reference", reference),
    ):
        for each in named:
            if each not in providers:
                served_by = ", ".join(providers)
                raise policy_error(
                    id, f"{setting} names {each!r}, which does not serve it: {served_by} do."
                )
    here = next((each for each in deployments if each.provider == LOCAL), None)
    if here and (policy.canaries or policy.reference not in {None, LOCAL}):
        setting = "canaries" if policy.canaries else "reference"
        raise policy_error(
            id,
            f"{setting} cannot say what its space is: it runs here, and so is its own reference.",
        )
    if not any(policy.weights.get(each, 1) for each in policy.only or providers):
        raise policy_error(id, "weights leave nobody: one must be above 0.")
    model = default_deployment(deployments, policy).model
    width = policy.canaries.vectors.shape[1] if policy.canaries else None
    if width and model.dimensions not in {None, width}:
        raise policy_error(
            id, f"canaries are of {width} dimensions, but the model is of {model.dimensions}."
        )


def policy_error(id: str, reason: str) -> CatalogError:
    """Return the error for a section `[models.ID]`."""
    return CatalogError(f'[models."{id}"]: {reason}', setting="models")
