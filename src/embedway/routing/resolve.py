"""From a name to what it stands for, or to what the client is told that it may have meant."""

from embedway.catalog.catalog import Catalog, Named
from embedway.core.errors import MODELS_LISTED, UnknownModel


def find(name: str, catalog: Catalog, *, param: str) -> Named:
    """What this name stands for.

    Raises:
        UnknownModel: Nothing has this name; says which names are near, or who there is.
    """
    if found := catalog.find(name):
        return found
    raise UnknownModel(catalog.unknown(name, otherwise=MODELS_LISTED), param=param)
