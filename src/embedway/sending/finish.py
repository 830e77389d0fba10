"""Checks vectors as a provider sent them, and makes them as wide as the client wants."""

import msgspec

from embedway.catalog.deployment import Deployment
from embedway.core import vectors
from embedway.core.batch import Batch, BatchResult
from embedway.core.errors import InvalidRequest
from embedway.core.request import EmbedRequest

MIN_PADDING = 16
"""A run of this many trailing zeros in every vector means the provider padded them."""


def check_result(result: BatchResult, batch: Batch) -> BatchResult:
    """Return the answer to `batch`, its vectors at length one if they must have it.

    Raises:
        ProviderError: It holds other vectors than were asked for.
    """
    good = vectors.check_vectors(
        result.vectors,
        items=len(batch.items),
        dimensions=batch.width,
        normalised=batch.normalised,
    )
    return result if good is result.vectors else msgspec.structs.replace(result, vectors=good)


def finish(
    result: BatchResult, batch: Batch, request: EmbedRequest, deployment: Deployment
) -> BatchResult:
    """Return the answer with vectors as wide as the client asked for.

    Raises:
        InvalidRequest: The model turns out to have no vectors of that width.
        ProviderError: Nothing is left of a vector once it is shortened.
    """
    width, dimensions = result.vectors.shape[1], request.dimensions
    if dimensions is None:
        return result
    if batch.dimensions is None:
        if dimensions == width:
            return result  # all of it, so of the length it has
        return msgspec.structs.replace(
            result, vectors=vectors.shorten(result.vectors, dimensions=dimensions)
        )
    model = deployment.model
    if width != dimensions:
        raise InvalidRequest(
            f"'dimensions' is {dimensions}, but {deployment.provider} answers for {model.id!r} "
            f"with {width} all the same. Leave it out, or declare the model with its "
            "trained_dimensions, and this gateway shortens its vectors.",
            param="dimensions",
        )
    # DeepInfra fills up with zeros what is asked for beyond a model's own width.
    if model.trained_dimensions == "unknown" and not result.vectors[:, -MIN_PADDING:].any():
        raise InvalidRequest(
            f"'dimensions' is {dimensions}, more than {model.id!r} has. Ask for fewer.",
            param="dimensions",
        )
    return result
