"""Vector spaces: two vectors may be compared only if they come from the same one.

What a space is called, and what was proven of who claims to be in one.
"""

from typing import Literal

import msgspec

from embedway.core.request import InputType
from embedway.core.vectors import Vectors

ProofState = Literal["reference", "proven", "unproven", "differs", "drifted"]
"""What is known of a deployment: its vectors are the home space's reference, agree with it, were
not compared yet, are of a space of their own, or are no longer those they were."""


ReferenceKey = tuple[str, str, InputType | None]
"""Model, revision and input type, of which a reference is."""


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """The vectors of a space's canary texts: whoever is in the space answers with these."""

    model: str
    revision: str
    """Of the space."""
    input_type: InputType | None
    texts: str
    """Digest of the texts; with other texts these vectors say nothing."""
    vectors: Vectors
    made_by: str
    """Id of the deployment whose vectors they are."""
    made_ms: int

    @property
    def key(self) -> ReferenceKey:
        """What it is of."""
        return self.model, self.revision, self.input_type


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """What the last probe of a deployment told."""

    deployment: str
    """Its id."""
    input_type: InputType | None
    state: ProofState
    revision: str
    """Of the space that its vectors are in, or that it left."""
    home: str
    """Revision of the model's home space at that time."""
    cosine: float | None
    """The lowest of a canary's vector to its reference; None if none could be compared."""
    norm_deviation: float | None
    """The greatest relative difference of their lengths, likewise."""
    reason: str
    """Why it is not in the home space, for people."""
    fingerprint: str
    """Of its address and of the model's name there."""
    models: frozenset[str]
    """The names by which its answers called the model while they agreed."""
    at_ms: int
    """When it was probed."""
    since_ms: int
    """Since when it is in this state."""
