"""References of vector spaces, and proofs that deployments are in them."""

from typing import Literal

import msgspec

from embedway.core.request import InputType
from embedway.core.vectors import Vectors

ProofState = Literal["reference", "proven", "unproven", "differs", "drifted"]
"""A deployment's vectors are the home space's reference, agree with it, were not compared yet, are
in a space of their own, or are no longer what they were."""
ReferenceKey = tuple[str, str, InputType | None]
"""Model id, revision and input type of a reference."""
ProofKey = tuple[str, InputType | None]
"""Deployment id and input type of a proof."""


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """The canaries' vectors that define a space."""

    model: str
    revision: str
    """Revision of the space."""
    input_type: InputType | None
    texts: str
    """Digest of the canaries that these are the vectors of."""
    vectors: Vectors
    """Shape (texts, width), float32."""
    made_by: str
    """Id of the deployment that gave the vectors."""
    made_ms: int

    @property
    def key(self) -> ReferenceKey:
        """The primary key."""
        return self.model, self.revision, self.input_type


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a deployment's last probe."""

    deployment: str
    """Id of the deployment."""
    input_type: InputType | None
    state: ProofState
    revision: str
    """Revision of the space that its vectors are in; after drift, of the space it left."""
    home: str
    """Revision of the model's home space when it was probed."""
    cosine: float | None
    """The lowest cosine of a canary with its reference; None if there was nothing to compare."""
    norm_deviation: float | None
    """The greatest relative difference in length; None if there was nothing to compare."""
    reason: str
    """Why it is not in the home space, for people."""
    fingerprint: str
    """Digest of its address and its name for the model."""
    models: frozenset[str]
    """The model names in its responses while it was in this state."""
    at_ms: int
    """When it was probed."""
    since_ms: int
    """When it entered this state."""

    @property
    def key(self) -> ProofKey:
        """The primary key."""
        return self.deployment, self.input_type
