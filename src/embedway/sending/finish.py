"""Checks the vectors of a provider, and shortens them to the width the client wants."""

import msgspec

from embedway.catalog.deployment import Deployment
from embedway.core import vectors
from embedway.core.batch import Batch, BatchResult
from embedway.core.errors import InvalidRequest
from embedway.core.request import EmbedRequest

MIN_PADDING = 16
"""A run of this many trailing zeros in every vector means the provider padded them."""


def check_result(result: BatchResult, batch: Batch) -> BatchResult:
    """Return the answer to a batch, with vectors of length one if the model's are normalised.

    Raises:
        ProviderError: The vectors are not what the batch asked for.
    """
    checked = vectors.check_vectors(
        result.vectors,
        items=len(batch.items),
        dimensions=batch.width,
        normalised=batch.normalised,
    )
    if checked is result.vectors:
        return result
    return msgspec.structs.replace(result, vectors=checked)


def finish(
    result: BatchResult, batch: Batch, request: EmbedRequest, deployment: Deployment
) -> BatchResult:
    """Return the answer with vectors of the width that the client asked for.

    Raises:
        InvalidRequest: The model turns out not to support that width.
        ProviderError: A shortened vector is zero.
    """
    width, dimensions = result.vectors.shape[1], request.dimensions
    if dimensions is None:
        return result
    if batch.dimensions is None:
        if dimensions == width:
            return result  # nothing to shorten
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
    # DeepInfra pads with zeros when asked for more than the model's own width.
    if model.trained_dimensions == "unknown" and not result.vectors[:, -MIN_PADDING:].any():
        raise InvalidRequest(
            f"'dimensions' is {dimensions}, more than {model.id!r} has. Ask for fewer.",
            param="dimensions",
        )
    return result
