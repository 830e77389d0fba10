"""From a name to what it stands for, or to what the client is told that it may have meant."""

from embedway.catalog.catalog import Catalog, Named
from embedway.core.errors import UnknownModel


def find(name: str, catalog: Catalog, *, param: str) -> Named:
    """What this name stands for.

    Raises:
        UnknownModel: Nothing has this name; says which names are near, or who there is.
    """
    if found := catalog.find(name):
        return found
    hint = catalog.hint(name, otherwise="GET /v1/models lists those there are.")
    raise UnknownModel(f"The model {name!r} does not exist. {hint}", param=param)
