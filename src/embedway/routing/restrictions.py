"""What a caller may use: the models and providers that its keys and its project are limited to.

Knows nothing of how a name is resolved or of who is asked; the router asks it of each deployment.
"""

from collections.abc import Iterator

from embedway.catalog.deployment import Deployment
from embedway.core.errors import ModelForbidden
from embedway.core.keys import Caller, Key
from embedway.core.project import Project


def may_use(caller: Caller, *, asked: str, served: Deployment) -> bool:
    """Whether `caller` may use this deployment under the name `asked`."""
    return (
        model_error(caller, asked=asked, served=served) or provider_error(caller, served=served)
    ) is None


def model_error(caller: Caller, *, asked: str, served: Deployment) -> ModelForbidden | None:
    """Why `caller` may not use this model under the name `asked`, if it may not.

    A model's id allows every deployment of it that the catalog declares; `provider:model` allows
    that deployment, also where it is reached by another name; any other name, such as an alias,
    allows whoever it stands for, but only under this name.
    """
    for whose, holder in _holders(caller):
        models = holder.models
        if models is None or asked in models or served.id in models:
            continue
        # A provider's undeclared model is whatever it has under the name, perhaps no such model.
        if not (served.model.declared and served.model.id in models):
            return _forbidden(whose, f"the model {asked!r}", models)
    return None


def provider_error(caller: Caller, *, served: Deployment) -> ModelForbidden | None:
    """Why `caller` may not be served by this provider, if it may not."""
    for whose, holder in _holders(caller):
        if holder.providers is not None and served.provider not in holder.providers:
            return _forbidden(whose, f"the provider {served.provider!r}", holder.providers)
    return None


def _holders(caller: Caller) -> Iterator[tuple[str, Key | Project]]:
    for key in caller.keys:
        yield "key", key
    if caller.project:
        yield "project", caller.project


def _forbidden(whose: str, what: str, allowed: tuple[str, ...]) -> ModelForbidden:
    may = f"It may use {', '.join(allowed)}." if allowed else "It may use none."
    return ModelForbidden(f"This {whose} may not use {what}. {may}", param="model")
