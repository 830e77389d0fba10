"""Resolves a requested name, or says which names the client may have meant."""

from embedway.catalog.catalog import Catalog, ResolvedName
from embedway.catalog.deployment import Deployment
from embedway.core.errors import MODELS_LISTED, ModelRetired, UnknownModel


def resolve(name: str, catalog: Catalog, *, param: str) -> ResolvedName:
    """Return what this name stands for.

    Raises:
        UnknownModel: The catalog has no such name. The message suggests names close to it.
    """
    if found := catalog.find(name):
        return found
    raise UnknownModel(catalog.unknown(name, otherwise=MODELS_LISTED), param=param)


def retired_error(name: str, deployment: Deployment) -> ModelRetired:
    """Build the error for a request that names a deployment its provider has retired."""
    spec, model = deployment.spec, deployment.model.id
    means = "" if name in {deployment.id, model} else f"{name!r} means {deployment.id}: "
    message = f"{means}{deployment.provider} retired the model {model!r} on {spec.retires}."
    if spec.successor:
        message += (
            f" Its successor there is {spec.successor!r}; vectors of the two cannot be "
            "compared, so embed all texts anew."
        )
    else:
        message += " Name another model or provider."
    return ModelRetired(message, param="model")
