"""Judges a probe's vectors against references and the deployment's last proof."""

import msgspec

from embedway.catalog.deployment import Deployment
from embedway.core.request import InputType
from embedway.core.vectors import Vectors, normalise
from embedway.spaces import canaries
from embedway.spaces.canaries import CanaryComparison
from embedway.spaces.proof import Proof, ProofState
from embedway.spaces.registry import SpaceRegistry


class ProbeResult(msgspec.Struct, frozen=True, kw_only=True):
    """A deployment's responses to the canaries."""

    vectors: Vectors
    models: frozenset[str] = frozenset()
    """The model names in the responses."""
    fingerprint: str
    """Digest of the deployment's address and its name for the model."""
    at_ms: int
    calls: int = 1
    """How many calls the responses are from."""


def judge(
    registry: SpaceRegistry,
    deployment: Deployment,
    input_type: InputType | None,
    probe: ProbeResult,
) -> Proof:
    """Return the proof that `probe` gives.

    Earlier drift does not matter here, only which space the deployment was in. The caller keeps a
    drifted deployment in quarantine until an operator releases it.
    """
    model = deployment.model.id
    home, own = registry.default_space(model), registry.native_space(deployment)
    before = registry.proof(deployment.id, input_type)
    previous = before.revision if before and before.home == home else None
    if (
        before
        and before.state == "proven"
        and (before.cosine or 0) < registry.policy(model).min_cosine
    ):
        previous = None  # by today's min_cosine it was never there
    to_home = _compare(registry, deployment, home, input_type, probe)
    to_own = None if own == home else _compare(registry, deployment, own, input_type, probe)
    in_home = to_home is not None and not to_home.difference
    in_own = to_own is None or not to_own.difference
    state: ProofState
    if in_home and (in_own or previous != own):
        state, revision, comparison = "reference" if own == home else "proven", home, to_home
    elif own == home or (to_home is not None and previous == home):
        state, revision, comparison = "drifted", home, to_home
    elif not in_own:
        state, revision, comparison = "drifted", own, to_own
    else:
        # Without a reference to compare with, nothing differs.
        state, revision, comparison = "differs" if to_home else "unproven", own, to_home
    same = before if before and (before.state, before.revision) == (state, revision) else None
    earlier_names = (
        same.models if same and same.fingerprint == probe.fingerprint else frozenset[str]()
    )
    return Proof(
        deployment=deployment.id,
        input_type=input_type,
        state=state,
        revision=revision,
        home=home,
        cosine=comparison and comparison.cosine,
        norm_deviation=comparison and comparison.norm_deviation,
        reason=comparison.difference if comparison else _why_not_compared(registry, model, home),
        fingerprint=probe.fingerprint,
        models=probe.models | earlier_names,
        at_ms=probe.at_ms,
        since_ms=same.since_ms if same else probe.at_ms,
    )


def _why_not_compared(registry: SpaceRegistry, model_id: str, home: str) -> str:
    maker = registry.reference_deployment(model_id)
    if maker is None:
        return f"there are no reference vectors of {home}"
    return f"not compared yet: {maker.id}, whose vectors define the space, has sent none"


def _compare(
    registry: SpaceRegistry,
    deployment: Deployment,
    revision: str,
    input_type: InputType | None,
    probe: ProbeResult,
) -> CanaryComparison | None:
    """Compare a probe with a space's reference; None if there is none."""
    model_id = deployment.model.id
    reference = registry.reference(model_id, revision, input_type)
    if reference is None:
        return None
    min_cosine = registry.policy(model_id).min_cosine
    vectors = probe.vectors[registry.canary_slice(model_id, revision, input_type)]
    # Supplied vectors may have any length, but the probe's are normalised.
    expected = normalise(reference.vectors) if deployment.model.normalised else reference.vectors
    return canaries.compare(vectors, expected, min_cosine=min_cosine)
