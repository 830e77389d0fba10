"""What the operator says of a model: who is asked for it, and what proves that vectors are its."""

from collections.abc import Mapping, Sequence

import msgspec

from embedway.catalog.deployment import Served
from embedway.catalog.model import LOCAL
from embedway.catalog.resolved_name import CatalogError, claim
from embedway.core.vectors import Vectors


class Canaries(msgspec.Struct, frozen=True, kw_only=True):
    """Texts with the vectors that the model gives them, as the operator supplies them."""

    texts: tuple[str, ...]
    vectors: Vectors
    """Of the texts, in their order."""
    digest: str
    """12 hex digits that stand for the file."""


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """What is said of one model; providers are by their names here."""

    order: tuple[str, ...] = ()
    """Tried first, in this order, whatever is preferred."""
    weights: Mapping[str, float] = {}
    """Shares of first tries among those that rank alike; with 0 only when nobody else is left."""
    only: tuple[str, ...] = ()
    """These alone, if any are named."""
    reference: str | None = None
    """Whose vectors define the model's home space."""
    canaries: Canaries | None = None
    """What defines it instead."""
    min_cosine: float = 0.999
    """Of a deployment's canary vectors to the reference, the lowest at which it joins."""


def standard(deployments: Sequence[Served], policy: Policy) -> Served:
    """The one of a model's deployments whose facts its bare id stands for."""
    pinned = (policy.reference,) if policy.reference else policy.only
    return next((each for each in deployments if each.provider in pinned), deployments[0])


def of_one_space(deployments: Sequence[Served], policy: Policy) -> tuple[Served, ...]:
    """Those of a model's deployments that a bare id may mean: declared with the same facts."""
    space = claim(standard(deployments, policy))
    return tuple(each for each in deployments if claim(each) == space)


def check(id: str, policy: Policy, deployments: Sequence[Served]) -> None:
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
                raise refusal(
                    id, f"{setting} names {each!r}, which does not serve it: {served_by} do."
                )
    here = next((each for each in deployments if each.provider == LOCAL), None)
    if here and (policy.canaries or policy.reference not in {None, LOCAL}):
        setting = "canaries" if policy.canaries else "reference"
        raise refusal(
            id,
            f"{setting} cannot say what its space is: it runs here, and so is its own reference.",
        )
    if not any(policy.weights.get(each, 1) for each in policy.only or providers):
        raise refusal(id, "weights leave nobody: one must be above 0.")
    model = standard(deployments, policy).model
    width = policy.canaries.vectors.shape[1] if policy.canaries else None
    if width and model.dimensions not in {None, width}:
        raise refusal(
            id, f"canaries are of {width} dimensions, but the model is of {model.dimensions}."
        )


def refusal(id: str, reason: str) -> CatalogError:
    """The error for a section `[models.ID]`."""
    return CatalogError(f'[models."{id}"]: {reason}', setting="models")
