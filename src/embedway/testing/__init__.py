"""For tests of whoever uses this package: a provider that is scripted to misbehave.

    from embedway.testing import Upstream, vector_of

    with Upstream() as upstream:
        upstream.script("503", None)  # the first call fails, the second is answered
        ...                           # a gateway whose openai is at f"{upstream.url}/openai/v1"
        assert len(upstream.calls) == 2

`MISBEHAVIOURS` has every name that a script may hold.
"""

from embedway.testing.misbehaviour import MISBEHAVIOURS, Misbehaviour
from embedway.testing.protocols import SPOKEN, Call, Item, Reply, vector_of
from embedway.testing.upstream import Step, Upstream

__all__ = [
    "MISBEHAVIOURS",
    "SPOKEN",
    "Call",
    "Item",
    "Misbehaviour",
    "Reply",
    "Step",
    "Upstream",
    "vector_of",
]
