"""Proves which space each deployment is in: probes it, judges the vectors, stores the result.

Decides when and how often to probe. Everything is stored before it is used; if the database is
unreachable, the process goes by what it saw itself.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, Literal

import msgspec
import structlog

from embedway.catalog.catalog import LOCAL
from embedway.catalog.deployment import Deployment
from embedway.concurrency.background import retrieve_error
from embedway.core.errors import StorageUnavailable
from embedway.core.provider_error import Billable, ProviderError
from embedway.core.request import InputType
from embedway.core.usage import UsageRecord
from embedway.sending.sender import Sender
from embedway.spaces import canaries
from embedway.spaces.canaries import CANARIES
from embedway.spaces.membership import Membership, SpaceMemberships
from embedway.spaces.probe import CanaryProbe, ProbeRecorder
from embedway.spaces.proof import Proof, ProofKey, Reference, ReferenceKey
from embedway.spaces.store import SpaceStore
from embedway.spaces.verdict import ProbeResult, judge

REST_S = 30
"""No background probe starts for this long after a failed one. Each further failure doubles it."""
MAX_REST_S = 600
"""The longest wait between background probes."""
USER_REST_S = 2
"""No probe that a request waits for starts for this long after a failed one."""
REREAD_S = 5
"""How often to read what operators and other processes stored."""

FAILS_OFTEN = 3
"""A deployment that has failed so many probes in a row may never be proven."""

_log = structlog.get_logger("embedway.prober")

SpaceEvent = Literal["proven", "differs", "drifted", "released"]
OnEvent = Callable[[SpaceEvent, Deployment, Membership], None]


class _Failure(msgspec.Struct, frozen=True, kw_only=True):
    """The last failed probe, and how many failed in a row."""

    count: int
    at_s: float
    error: ProviderError | None
    """None if the probe succeeded, but its vectors could not be compared."""


async def _ignore(_: UsageRecord) -> None:
    pass


class Prober:
    """Proves which space each deployment is in; one for the process."""

    def __init__(
        self,
        *,
        spaces: SpaceMemberships,
        store: SpaceStore,
        sender: Sender,
        on_event: OnEvent = lambda _event, _deployment, _membership: None,
        record: ProbeRecorder = _ignore,
    ) -> None:
        """Probe through `sender`, and keep results in `spaces` and `store`.

        `on_event` is called when a deployment's state changes, and `record` stores the usage
        record of a probe.
        """
        self.membership = spaces.membership
        self.is_in = spaces.is_in
        self.is_probed = spaces.is_probed
        self.spaces = spaces
        self._registry = spaces.registry
        self._store = store
        self._probes = CanaryProbe(
            sender=sender, fingerprint=spaces.fingerprint, now_ms=spaces.now_ms, record=record
        )
        self._on_event = on_event
        self._now_s = sender.now_s
        self._flights: dict[ProofKey, asyncio.Task[Membership]] = {}
        self._failures: dict[ProofKey, _Failure] = {}
        self._reread_task: asyncio.Task[None] | None = None
        self._reread_s = sender.now_s()
        self._unstored_references: dict[ReferenceKey, Reference] = {}
        self._unstored_proofs: dict[ProofKey, Proof] = {}

    async def load(self) -> None:
        """Store what could not be stored before, and read what is not yet known.

        Raises:
            StorageUnavailable: The database cannot be read or written.
        """
        while self._unstored_references:
            await self._keep_reference(next(iter(self._unstored_references.values())))
        while self._unstored_proofs:
            await self._keep_proof(next(iter(self._unstored_proofs.values())))
        references, proofs = await self._store.load(known=self._registry.references())
        self.spaces.load(
            references,
            (each for each in proofs if each.key not in self._unstored_proofs),
        )

    async def refresh(self) -> None:
        """Read what operators and other processes stored, if the last read was a while ago."""
        age_s = self._now_s() - self._reread_s
        if age_s < REREAD_S or not self.spaces.is_any_probed:
            return
        reread = self._start_reread()
        if age_s >= 2 * REREAD_S:  # idle for so long that much may have changed
            await asyncio.shield(reread)

    async def read_anew(self, deployment: Deployment, input_type: InputType | None) -> None:
        """Read all that operators and other processes have stored by now.

        For a deployment that keeps failing its probes, read only every `REREAD_S`: each of its
        answers waits for this.
        """
        failure = self._failures.get((deployment.id, input_type))
        if failure and failure.count >= FAILS_OFTEN and self._now_s() < self._reread_s + REREAD_S:
            return
        earlier = self._reread_task
        if earlier and not earlier.done():
            await asyncio.shield(earlier)  # it may have missed what was just stored
        reread = self._reread_task
        if reread is None or reread is earlier:
            reread = self._begin_reread()
        await asyncio.shield(reread)

    async def prove(self, deployment: Deployment, input_type: InputType | None) -> Membership:
        """Probe `deployment` now, or wait for the probe under way.

        Raises:
            ProviderError: The probe failed.
        """
        if not self.spaces.is_probed(deployment):
            return self.membership(deployment, input_type)
        if deployment.id in self._registry.drift_proofs:
            await asyncio.shield(self._start_reread())
            if deployment.id in self._registry.drift_proofs:
                return self.membership(deployment, input_type)
        failure = self._failures.get((deployment.id, input_type))
        if failure and self._now_s() - failure.at_s < USER_REST_S:
            if failure.error is None:
                return self.membership(deployment, input_type)
            raise failure.error.with_traceback(None)  # it grows each time it is raised
        return await asyncio.shield(self._start_probe(deployment, input_type))

    def schedule(self, deployment: Deployment, input_type: InputType | None) -> None:
        """Probe `deployment` in the background if that is due; cheap if it is not.

        After drift, look whether an operator released the deployment instead.
        """
        membership = self.membership(deployment, input_type)
        if membership.state == "drifted":
            self._start_reread()
        elif membership.is_due or not membership.is_usable:
            failure = self._failures.get((deployment.id, input_type))
            if failure is None or self._now_s() - failure.at_s >= _rest_s(failure):
                self._start_probe(deployment, input_type)

    def delay_next_probe(self, deployment: Deployment, input_type: InputType | None) -> None:
        """Make the next probe wait as after a failed one, unless the last one did fail."""
        if (deployment.id, input_type) not in self._failures:
            self._record_failure(deployment, input_type, None)

    async def release(
        self, deployment: Deployment, input_type: InputType | None, *, accept: str | None = None
    ) -> Membership:
        """Probe a deployment that drifted, and release it if it is again what it was.

        If its vectors still differ, they get the new revision `accept`; with None it stays drifted.

        Raises:
            ProviderError: The probe failed.
            StorageUnavailable: The release could not be stored, and has no effect.
        """
        probe = await self._probes.run(
            deployment, input_type, self._registry.canary_texts(deployment.model.id)
        )
        proof = judge(self._registry, deployment, input_type, probe)
        if proof.state == "drifted" and accept:
            makes_reference = self._registry.reference_deployment(deployment.model.id) == deployment
            reference = await self._make_reference(deployment, accept, input_type, probe)
            self.spaces.load([await self._store.keep_reference(reference)])
            proof = msgspec.structs.replace(
                proof,
                state="reference" if makes_reference else "differs",
                revision=accept,
                home=self._registry.default_space(deployment.model.id),
                cosine=1.0 if makes_reference else proof.cosine,
                norm_deviation=0.0 if makes_reference else proof.norm_deviation,
                reason="" if makes_reference else f"accepted as it is now, apart from {proof.home}",
                since_ms=probe.at_ms,
            )
        kept = await self._store.keep_proof(proof, release=proof.state != "drifted")
        self._unstored_proofs.pop(proof.key, None)
        self.spaces.load(proofs=[kept])
        return self.membership(deployment, input_type)

    async def aclose(self) -> None:
        """Cancel the probes and reads in the background."""
        tasks: list[asyncio.Task[Any]] = [*self._flights.values()]
        if self._reread_task:
            tasks.append(self._reread_task)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _start_probe(
        self, deployment: Deployment, input_type: InputType | None
    ) -> asyncio.Task[Membership]:
        """Return the probe under way, or start one."""
        key = (deployment.id, input_type)
        flight = self._flights.get(key)
        if flight is None:
            flight = asyncio.create_task(self._run(deployment, input_type))
            self._flights[key] = flight
            flight.add_done_callback(lambda done: self._end_flight(key, done))
        return flight

    def _end_flight(self, key: ProofKey, flight: asyncio.Task[Membership]) -> None:
        self._flights.pop(key, None)
        retrieve_error(flight)  # callers and the log have it

    async def _run(self, deployment: Deployment, input_type: InputType | None) -> Membership:
        try:
            membership = await self._probe_and_judge(deployment, input_type)
        except ProviderError as error:
            self._record_failure(deployment, input_type, error)
            raise
        except Exception as error:  # the top of a background task
            _log.exception("probe broke", deployment=deployment.id)
            failure = ProviderError("failed", type(error).__name__)
            self._record_failure(deployment, input_type, failure)
            raise failure from error
        if membership.is_due or not membership.is_usable:
            self._record_failure(deployment, input_type, None)  # its vectors could not be compared
        else:
            self._failures.pop((deployment.id, input_type), None)
        return membership

    def _record_failure(
        self, deployment: Deployment, input_type: InputType | None, error: ProviderError | None
    ) -> None:
        key = (deployment.id, input_type)
        before = self._failures.get(key)
        count = before.count + 1 if before else 1
        self._failures[key] = _Failure(count=count, at_s=self._now_s(), error=error)
        if error:
            # Leave the reason out: a provider may repeat in it what it was sent.
            _log.warning(
                "probe failed",
                deployment=deployment.id,
                input_type=input_type,
                kind=error.kind,
                status=error.status,
                failures=count,
            )

    async def _probe_and_judge(
        self, deployment: Deployment, input_type: InputType | None
    ) -> Membership:
        """Probe `deployment` and store the verdict. Make the home's reference first if missing."""
        registry, model = self._registry, deployment.model.id
        home = registry.default_space(model)
        makes_reference = await self._must_make_reference(deployment, input_type)
        if deployment.id in registry.drift_proofs:  # just found with another input type
            return self.membership(deployment, input_type)
        probe = await self._probes.run(deployment, input_type, registry.canary_texts(model))
        # Judge by what operators and other processes stored too.
        with contextlib.suppress(StorageUnavailable):
            await self.load()
        if makes_reference:
            reference = await self._make_reference(deployment, home, input_type, probe)
            await self._store_reference(reference)
        if registry.default_space(model) != home:  # an operator or another process was faster
            return await self._probe_and_judge(deployment, input_type)
        proof = judge(registry, deployment, input_type, probe)
        missing = registry.reference(model, proof.revision, input_type) is None
        if proof.state in {"differs", "unproven"} and missing:
            reference = await self._make_reference(deployment, proof.revision, input_type, probe)
            await self._store_reference(reference)
            proof = judge(registry, deployment, input_type, probe)
        await self._store_proof(deployment, proof)
        return self.membership(deployment, input_type)

    def _start_reread(self) -> asyncio.Task[None]:
        """Start to read what is stored, or return the read under way or just done."""
        if self._reread_task is None or (
            self._reread_task.done() and self._now_s() - self._reread_s >= REREAD_S
        ):
            return self._begin_reread()
        return self._reread_task

    def _begin_reread(self) -> asyncio.Task[None]:
        self._reread_s = self._now_s()
        self._reread_task = asyncio.create_task(self._read_stored())
        return self._reread_task

    async def _read_stored(self) -> None:
        before = set(self._registry.drift_proofs)
        with contextlib.suppress(StorageUnavailable):
            await self.load()
        after = set(self._registry.drift_proofs)
        for id in before ^ after:
            if deployment := self._registry.deployment(id):
                event = "drifted" if id in after else "released"
                self._on_event(event, deployment, self.membership(deployment, None))

    async def _must_make_reference(
        self, deployment: Deployment, input_type: InputType | None
    ) -> bool:
        """Return whether the home's reference is missing and `deployment` has to make it.

        If another deployment has to, ask that one first.
        """
        registry, model = self._registry, deployment.model.id
        home, maker = registry.default_space(model), registry.reference_deployment(model)
        if registry.reference(model, home, input_type):
            return False
        retired = maker is not None and maker.id in registry.retired_ids
        anchors = registry.anchor_input_types(model, home, input_type)
        # A deployment that agrees with supplied canaries makes the references of other input types,
        # and so does one that agrees with the references of a retired maker.
        if maker is None:
            makes_reference = registry.is_supplied(model)
        else:
            makes_reference = bool(anchors) if retired else maker.id == deployment.id
        if makes_reference:
            for anchor in anchors:
                # The model may have changed since the anchor was proven.
                membership = await self.prove(deployment, anchor)
                if membership.state not in {"reference", "proven"}:
                    return False
            return True
        if maker is None or retired:
            return False
        try:
            if maker.provider == LOCAL:
                probe = await self._probes.run(maker, input_type, registry.canary_texts(model))
                await self._store_reference(
                    await self._make_reference(maker, home, input_type, probe)
                )
            else:
                await self.prove(maker, input_type)
        except ProviderError as error:
            _log.warning("no reference", deployment=deployment.id, maker=maker.id, kind=error.kind)
        return False

    async def _make_reference(
        self,
        deployment: Deployment,
        revision: str,
        input_type: InputType | None,
        probe: ProbeResult,
    ) -> Reference:
        """Build a reference from `probe`.

        Raises:
            ProviderError: The deployment changed between two calls of the probe, or it cannot be
                asked again.
        """
        if probe.calls > 1:
            # A reference of two models would quarantine its own deployment at the next probe.
            texts, policy = CANARIES, self._registry.policy(deployment.model.id)
            again = await self._probes.run(deployment, input_type, texts)
            difference = canaries.compare(
                again.vectors, probe.vectors[: len(texts)], min_cosine=policy.min_cosine
            ).difference
            if difference:
                reason = f"vectors that changed while they were probed ({difference})"
                raise ProviderError("malformed", reason, billed="yes")
        return Reference(
            model=deployment.model.id,
            revision=revision,
            input_type=input_type,
            texts=canaries.digest_texts(CANARIES),
            vectors=probe.vectors[: len(CANARIES)],
            made_by=deployment.id,
            made_ms=probe.at_ms,
        )

    async def _store_reference(self, reference: Reference) -> None:
        """Store a reference and use it; if it cannot be stored yet, use it all the same."""
        try:
            await self._keep_reference(reference)
        except StorageUnavailable:
            _log.warning("reference not stored", model=reference.model)
            self._unstored_references[reference.key] = reference
            self.spaces.load([reference])

    async def _keep_reference(self, reference: Reference) -> None:
        """Store a reference, then use it, or the one that another process stored before."""
        kept = await self._store.keep_reference(reference)
        self._unstored_references.pop(reference.key, None)
        self.spaces.load([kept])

    async def _store_proof(self, deployment: Deployment, proof: Proof) -> None:
        """Store a proof and use it; if it cannot be stored yet, use it all the same."""
        before = self._registry.proof(*proof.key)
        try:
            proof = await self._keep_proof(proof)
            self._unstored_proofs.pop(proof.key, None)  # an older one
        except StorageUnavailable:
            _log.warning("proof not stored", deployment=deployment.id)
            self._unstored_proofs[proof.key] = proof
            self.spaces.load(proofs=[proof])
        is_news = not before or (before.state, before.revision) != (proof.state, proof.revision)
        if is_news and proof.state != "unproven":
            event = "proven" if proof.state == "reference" else proof.state
            self._on_event(event, deployment, self.membership(deployment, proof.input_type))

    async def _keep_proof(self, proof: Proof) -> Proof:
        """Store a proof, then use it, or the drift that another process stored; return that."""
        kept = await self._store.keep_proof(proof)
        if self._unstored_proofs.get(proof.key) is proof:
            del self._unstored_proofs[proof.key]
        self.spaces.load(proofs=[kept])
        return kept


def _rest_s(failure: _Failure) -> float:
    return min(REST_S * 2 ** (failure.count - 1), MAX_REST_S)


def failure_for_request(error: ProviderError, *, billed: Billable) -> ProviderError:
    """Return the failure of a probe as that of one request that waited for it.

    Args:
        error: The failure of the probe.
        billed: Whether the provider may charge for the request itself.
    """
    if not error.can_fail_over or error.kind == "item_failed":
        # What is wrong with the canaries says nothing about the request.
        return ProviderError("malformed", "it refuses the canaries", billed=billed)
    copy = ProviderError(
        error.kind,
        error.reason,
        billed=billed,
        retry_after_s=error.retry_after_s,
        of_tokens=error.of_tokens,
    )
    copy.status = error.status
    return copy
