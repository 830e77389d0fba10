"""Which engine embeds for a deployment, and what one call to it may hold."""

import msgspec

from embedway.catalog.catalog import LOCAL
from embedway.catalog.model import Served
from embedway.core.batch import Limits


def engine_of(served: Served) -> str:
    """The name of the engine: the deployment's provider, or the model itself if it runs here."""
    return served.id if served.provider == LOCAL else served.provider


def limits_of(served: Served, limits: Limits) -> Limits:
    """Of a call: the deployment's own before `limits`, which are its engine's."""
    deployment = served.deployment
    if deployment.max_items is None and deployment.max_batch_tokens is None:
        return limits
    return msgspec.structs.replace(
        limits,
        max_items=deployment.max_items or limits.max_items,
        max_tokens=deployment.max_batch_tokens or limits.max_tokens,
    )
