"""Provides a scripted upstream for tests: a provider that answers well or misbehaves on demand.

    from embedway.testing import Upstream, vector_of

    with Upstream() as upstream:
        upstream.script("503", None)  # the first call fails, the second is answered
        ...                           # a gateway whose openai is at f"{upstream.url}/openai/v1"
        assert len(upstream.calls) == 2

`MISBEHAVIOURS` has every name that a script may use. Several upstreams can play several models, or
deployments that wrongly claim to be the same model:

    reference = space("bge-m3")
    with Upstream(vectors=reference) as good, Upstream(vectors=noisy(reference)) as bad:
        ...                        # later, while it runs:
        good.vectors = other_pooling(reference)
        good.echo = "bge-m3-v2"    # what its answers call the model
"""

from embedway.testing.misbehaviour import MISBEHAVIOURS, Misbehaviour
from embedway.testing.protocols import SPOKEN, UpstreamCall, UpstreamReply
from embedway.testing.upstream import Step, Upstream
from embedway.testing.vectors import (
    Item,
    Vectors,
    noisy,
    other_pooling,
    rotated,
    scaled,
    shorten_vector,
    sibling,
    space,
    vector_of,
)

__all__ = [
    "MISBEHAVIOURS",
    "SPOKEN",
    "Item",
    "Misbehaviour",
    "Step",
    "Upstream",
    "UpstreamCall",
    "UpstreamReply",
    "Vectors",
    "noisy",
    "other_pooling",
    "rotated",
    "scaled",
    "shorten_vector",
    "sibling",
    "space",
    "vector_of",
]
