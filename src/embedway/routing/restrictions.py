"""What a restricted key may use: the models it is limited to, by any name that a request may use.

Knows nothing of how a name is resolved or of who is asked; the router asks it of each deployment.
"""

from embedway.catalog.model import Served


def allows(caller_models: tuple[str, ...] | None, *, asked: str, served: Served) -> bool:
    """Whether a key restricted to `caller_models` may use this deployment under the name `asked`.

    A model's id allows every deployment of it that the catalog declares; `provider:model` allows
    that deployment, also where it is reached by another name; any other name, such as an alias,
    allows whoever it stands for, but only under this name.
    """
    if caller_models is None or asked in caller_models or served.id in caller_models:
        return True
    # A provider's undeclared model is whatever it has under the name, which may be no such model.
    return served.model.declared and served.model.id in caller_models
