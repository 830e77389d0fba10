"""What the operator says of a model: who is asked for it, and what proves that vectors are its."""

from collections.abc import Mapping, Sequence

import msgspec

from embedway.catalog.deployment import Deployment
from embedway.catalog.model import LOCAL
from embedway.catalog.resolved_name import CatalogError, claimed_space
from embedway.core.vectors import Vectors


class SuppliedCanaries(msgspec.Struct, frozen=True, kw_only=True):
    """Texts with the vectors that the model gives them, as the operator supplies them."""

    texts: tuple[str, ...]
    vectors: Vectors
    """Of the texts, in their order."""
    digest: str
    """12 hex digits that stand for the file."""


class ModelPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What is said of one model; providers are by their names here."""

    order: tuple[str, ...] = ()
    """Tried first, in this order, whatever is preferred."""
    weights: Mapping[str, float] = {}
    """Shares of first tries among those that rank alike; with 0 only when nobody else is left."""
    only: tuple[str, ...] = ()
    """These alone, if any are named."""
    reference: str | None = None
    """Whose vectors define the model's home space."""
    canaries: SuppliedCanaries | None = None
    """What defines it instead."""
    min_cosine: float = 0.999
    """Of a deployment's canary vectors to the reference, the lowest at which it joins."""


def default_deployment(deployments: Sequence[Deployment], policy: ModelPolicy) -> Deployment:
    """The one of a model's deployments whose facts its bare id stands for."""
    pinned = (policy.reference,) if policy.reference else policy.only
    return next((each for each in deployments if each.provider in pinned), deployments[0])


def same_space(deployments: Sequence[Deployment], policy: ModelPolicy) -> tuple[Deployment, ...]:
    """Those of a model's deployments that a bare id may mean: declared with the same facts."""
    space = claimed_space(default_deployment(deployments, policy))
    return tuple(each for each in deployments if claimed_space(each) == space)


def check_policy(id: str, policy: ModelPolicy, deployments: Sequence[Deployment]) -> None:
    """Raise `CatalogError` for a policy that cannot hold for a model with these deployments."""
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
    """The error for a section `[models.ID]`."""
    return CatalogError(f'[models."{id}"]: {reason}', setting="models")
