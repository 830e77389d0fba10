"""From a name to what it stands for, or to what the client is told that it may have meant."""

from embedway.catalog.catalog import Catalog, ResolvedName
from embedway.catalog.deployment import Deployment
from embedway.core.errors import MODELS_LISTED, ModelRetired, UnknownModel


def resolve(name: str, catalog: Catalog, *, param: str) -> ResolvedName:
    """What this name stands for.

    Raises:
        UnknownModel: Nothing has this name; says which names are near, or who there is.
    """
    if found := catalog.find(name):
        return found
    raise UnknownModel(catalog.unknown_message(name, otherwise=MODELS_LISTED), param=param)


def retired_error(asked: str, served: Deployment) -> ModelRetired:
    """What a client is told that asks for a deployment which its provider has retired."""
    deployment, model = served.spec, served.model.id
    means = "" if asked in {served.id, model} else f"{asked!r} means {served.id}: "
    message = f"{means}{served.provider} retired the model {model!r} on {deployment.retires}."
    if deployment.successor:
        message += (
            f" Its successor there is {deployment.successor!r}; vectors of the two cannot be "
            "compared, so embed all texts anew."
        )
    else:
        message += " Name another model or provider."
    return ModelRetired(message, param="model")
