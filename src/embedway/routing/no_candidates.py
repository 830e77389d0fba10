"""What a client is told where nobody is left to be asked."""

from collections.abc import Sequence

from embedway.core.errors import EmbedwayError, InvalidRequest, RateLimitExceeded, UpstreamError
from embedway.core.request import EmbedRequest
from embedway.routing.plan import Exclusion

SPACE = "space"
"""What removes a deployment whose vectors are of another space."""
QUARANTINE = "quarantine"
"""What removes a deployment whose vectors are no longer what they were."""


def no_candidates_error(
    request: EmbedRequest, removed: Sequence[Exclusion], unproven: Sequence[Exclusion]
) -> EmbedwayError:
    """The error that lists each filter and whom it removes.

    Args:
        request: That nobody is left for.
        removed: By the filters.
        unproven: Those of whom it could not be proven that they are of the space.
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
    """Each filter and whom it removes."""
    by: dict[str, list[str]] = {}
    for each in removed:
        by.setdefault(each.filter, []).append(f"{each.deployment.id} ({each.reason})")
    listed = "; ".join(f"{name!r} removes {', '.join(whom)}" for name, whom in by.items())
    return f"Nobody is left to serve {request.model!r}: {listed}."
