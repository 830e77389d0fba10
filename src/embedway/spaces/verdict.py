"""What a probe tells of a deployment, beside what was known of it."""

import msgspec

from embedway.catalog.deployment import Deployment
from embedway.core.request import InputType
from embedway.core.vectors import Vectors, normalise
from embedway.spaces import canaries
from embedway.spaces.canaries import CanaryComparison
from embedway.spaces.proof import Proof, ProofState
from embedway.spaces.registry import SpaceRegistry


class ProbeResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a deployment answered to the canaries."""

    vectors: Vectors
    models: frozenset[str] = frozenset()
    """The names by which the answers called the model."""
    fingerprint: str
    """Of the address that was asked, and of the model's name there."""
    at_ms: int


def judge(
    known: SpaceRegistry, served: Deployment, input_type: InputType | None, probe: ProbeResult
) -> Proof:
    """The proof that `probe` makes.

    Whether the deployment drifted before is not looked at, only which space it was in: that it
    stays drifted until an operator releases it is for the caller to see to.
    """
    model, home, own = (
        served.model.id,
        known.default_space(served.model.id),
        known.native_space(served),
    )
    before = known.proof(served.id, input_type)
    was = before.revision if before and before.home == home else None
    if (
        before
        and before.state == "proven"
        and (before.cosine or 0) < known.policy(model).min_cosine
    ):
        was = None  # by what the operator says now it never was there
    to_home = _agreement(known, served, home, input_type, probe)
    to_own = None if own == home else _agreement(known, served, own, input_type, probe)
    in_home = to_home is not None and not to_home.against
    in_own = to_own is None or not to_own.against
    state: ProofState
    if in_home and (in_own or was != own):
        state, revision, told = "reference" if own == home else "proven", home, to_home
    elif own == home or (to_home is not None and was == home):
        state, revision, told = "drifted", home, to_home
    elif not in_own:
        state, revision, told = "drifted", own, to_own
    else:
        # Where there was nothing to compare it with, nothing differs.
        state, revision, told = "differs" if to_home else "unproven", own, to_home
    same = before if before and (before.state, before.revision) == (state, revision) else None
    names = same.models if same and same.fingerprint == probe.fingerprint else frozenset[str]()
    return Proof(
        deployment=served.id,
        input_type=input_type,
        state=state,
        revision=revision,
        home=home,
        cosine=told and told.cosine,
        norm_deviation=told and told.norm_deviation,
        reason=told.against if told else _why_not_compared(known, model, home),
        fingerprint=probe.fingerprint,
        models=probe.models | names,
        at_ms=probe.at_ms,
        since_ms=same.since_ms if same else probe.at_ms,
    )


def _why_not_compared(known: SpaceRegistry, model_id: str, home: str) -> str:
    maker = known.reference_deployment(model_id)
    if maker is None:
        return f"no reference vectors of {home} are to be had"
    return f"not compared yet: {maker.id}, whose vectors define the space, has given none"


def _agreement(
    known: SpaceRegistry,
    served: Deployment,
    revision: str,
    input_type: InputType | None,
    probe: ProbeResult,
) -> CanaryComparison | None:
    """How it compares with a space's reference; None if there is none."""
    model_id = served.model.id
    reference = known.reference(model_id, revision, input_type)
    if reference is None:
        return None
    min_cosine = known.policy(model_id).min_cosine
    vectors = probe.vectors[known.canary_slice(model_id, revision, input_type)]
    # Whatever the length of the vectors that the operator supplied, the probe's have length one.
    wanted = normalise(reference.vectors) if served.model.normalised else reference.vectors
    return canaries.compare(vectors, wanted, min_cosine=min_cosine)
