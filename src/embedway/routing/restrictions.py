"""Checks the models and providers that a caller's keys and project are limited to."""

from collections.abc import Iterator

from embedway.catalog.deployment import Deployment
from embedway.core.errors import ModelForbidden
from embedway.core.keys import Caller, Key
from embedway.core.project import Project


def is_restricted(caller: Caller) -> bool:
    """Return whether `caller` is limited to certain models or providers."""
    holders = (*caller.keys, caller.project) if caller.project else caller.keys
    return any(each.models is not None or each.providers is not None for each in holders)


def may_use(caller: Caller, *, name: str, deployment: Deployment) -> bool:
    """Return whether `caller` may use this deployment under this name."""
    return (
        model_error(caller, name=name, deployment=deployment)
        or provider_error(caller, deployment=deployment)
    ) is None


def model_error(caller: Caller, *, name: str, deployment: Deployment) -> ModelForbidden | None:
    """Return why `caller` may not use this model under this name, or None.

    A restriction to a model's id allows all its declared deployments. `provider:model` allows that
    deployment under any name. Another name, such as an alias, allows what it stands for, but only
    under this name.
    """
    for whose, holder in _holders(caller):
        models = holder.models
        if models is None or name in models or deployment.id in models:
            continue
        # An undeclared model may be anything that the provider has under the name.
        if not (deployment.model.declared and deployment.model.id in models):
            return _forbidden(whose, f"the model {name!r}", models)
    return None


def provider_error(caller: Caller, *, deployment: Deployment) -> ModelForbidden | None:
    """Return why `caller` may not use this provider, or None."""
    for whose, holder in _holders(caller):
        if holder.providers is not None and deployment.provider not in holder.providers:
            return _forbidden(whose, f"the provider {deployment.provider!r}", holder.providers)
    return None


def _holders(caller: Caller) -> Iterator[tuple[str, Key | Project]]:
    for key in caller.keys:
        yield "key", key
    if caller.project:
        yield "project", caller.project


def _forbidden(whose: str, what: str, allowed: tuple[str, ...]) -> ModelForbidden:
    may = f"It may use {', '.join(allowed)}." if allowed else "It may use none."
    return ModelForbidden(f"This {whose} may not use {what}. {may}", param="model")
