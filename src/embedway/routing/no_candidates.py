"""Builds the error for a request that no deployment may serve."""

from collections.abc import Sequence

from embedway.core.errors import EmbedwayError, InvalidRequest, RateLimitExceeded, UpstreamError
from embedway.core.request import EmbedRequest
from embedway.routing.plan import Exclusion

SPACE = "space"
"""The filter that removes deployments whose vectors are in another space."""
QUARANTINE = "quarantine"
"""The filter that removes deployments that drifted."""


def no_candidates_error(
    request: EmbedRequest, removed: Sequence[Exclusion], unproven: Sequence[Exclusion]
) -> EmbedwayError:
    """Build an error that lists each filter and the deployments that it removed.

    `unproven` are deployments that could not be proven to be in the space.
    """
    errors = [each.error for each in removed]
    filters = list(dict.fromkeys(each.filter for each in removed))
    if errors and errors[0] and all(errors) and len(filters) == 1 and not unproven:
        return errors[0]
    message = _summary(request, [*removed, *unproven])
    waits = [each.wait_s for each in removed if each.wait_s is not None]
    if waits:
        return RateLimitExceeded(message, retry_after_s=min(waits))
    if unproven or QUARANTINE in filters:
        return UpstreamError(f"{message} Try again later, or tell the operator.")
    if SPACE in filters:
        message += " Ask for provider:model to have vectors of another space."
    fields = [each for each in filters if each in EmbedRequest.__struct_fields__]
    if fields:
        return InvalidRequest(f"{message} Widen a filter or leave it out.", param=fields[-1])
    return InvalidRequest(f"{message} Name another model or provider.", param="model")


def _summary(request: EmbedRequest, removed: Sequence[Exclusion]) -> str:
    by_filter: dict[str, list[str]] = {}
    for each in removed:
        by_filter.setdefault(each.filter, []).append(f"{each.deployment.id} ({each.reason})")
    listed = "; ".join(
        f"{name!r} removes {', '.join(deployments)}" for name, deployments in by_filter.items()
    )
    return f"No deployment is left to serve {request.model!r}: {listed}."
