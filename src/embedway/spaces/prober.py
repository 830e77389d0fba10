"""Asks deployments for the canaries' vectors, and keeps what their answers prove.

Owns when and how often they are asked. What an answer means is for `routing` to say.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, Literal

import msgspec
import structlog

from embedway.catalog.catalog import LOCAL
from embedway.catalog.deployment import Deployment
from embedway.core.errors import StorageUnavailable
from embedway.core.provider_error import ProviderError
from embedway.core.request import InputType
from embedway.core.usage import UsageRecord
from embedway.sending.sender import Sender
from embedway.spaces import canaries
from embedway.spaces.canaries import CANARIES
from embedway.spaces.membership import Membership, SpaceMemberships
from embedway.spaces.probe import CanaryProbe, ProbeRecorder
from embedway.spaces.proof import Proof, Reference
from embedway.spaces.store import SpaceStore
from embedway.spaces.verdict import ProbeResult, judge

REST_S = 30
"""After a failed probe, doubled for each that follows, no background probe is begun."""
MAX_REST_S = 600
REST_OF_USERS_S = 2
"""Likewise where requests wait for it."""
REREAD_S = 5
"""Between two looks for what operators and other processes on this database found out."""

_log = structlog.get_logger("embedway.prober")

SpaceEvent = Literal["proven", "differs", "drifted", "released"]
OnEvent = Callable[[SpaceEvent, Deployment, Membership], None]
Key = tuple[str, InputType | None]


class _Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Of the last probe, and how many have failed one after the other."""

    count: int
    at_s: float
    error: ProviderError | None
    """None if it answered, but could not be compared."""


async def _forget(_: UsageRecord) -> None:
    pass


class Prober:
    """Proves of which spaces deployments are; one for the process."""

    def __init__(
        self,
        *,
        spaces: SpaceMemberships,
        store: SpaceStore,
        sender: Sender,
        on_event: OnEvent = lambda _event, _served, _membership: None,
        record: ProbeRecorder = _forget,
    ) -> None:
        """Takes what it needs.

        Args:
            spaces: What is known; learns what is proven.
            store: Keeps it.
            sender: Sends the canaries.
            on_event: Told when a deployment is proven to be in another state than before.
            record: Keeps what a probe may cost.
        """
        self.membership = spaces.membership
        self.is_in = spaces.is_in
        self.is_probed = spaces.is_probed
        self.spaces = spaces
        self._known = spaces.known
        self._store = store
        self._probes = CanaryProbe(
            sender=sender, fingerprint=spaces.fingerprint, now_ms=spaces.now_ms, record=record
        )
        self._on_event = on_event
        self._now_s = sender.now_s
        self._flights: dict[Key, asyncio.Task[Membership]] = {}
        self._failures: dict[Key, _Failure] = {}
        self._rereading: asyncio.Task[None] | None = None
        self._reread_s = sender.now_s()
        self._unstored: set[Key] = set()
        """Deployments and input types whose last proof could not be stored."""

    async def load(self) -> None:
        """Learns what is stored and not yet known.

        Raises:
            StorageUnavailable: It cannot be read.
        """
        references, proofs = await self._store.load(known=self._known.references())
        self.spaces.load(
            references,
            (each for each in proofs if (each.deployment, each.input_type) not in self._unstored),
        )

    async def refresh(self) -> None:
        """Looks what other processes and operators found out, if that was a while ago."""
        age_s = self._now_s() - self._reread_s
        if age_s < REREAD_S or not self.spaces.any_probed:
            return
        reread = self._reread()
        if age_s >= 2 * REREAD_S:  # nobody asked for so long that much may have happened
            await asyncio.shield(reread)

    async def prove(self, served: Deployment, input_type: InputType | None) -> Membership:
        """Probes `served` now, together with whoever else waits for that.

        Raises:
            ProviderError: It cannot be asked.
        """
        if not self.spaces.is_probed(served):
            return self.membership(served, input_type)
        if served.id in self._known.drifted:
            await asyncio.shield(self._reread())
            if served.id in self._known.drifted:
                return self.membership(served, input_type)
        failure = self._failures.get((served.id, input_type))
        if failure and self._now_s() - failure.at_s < REST_OF_USERS_S:
            if failure.error is None:
                return self.membership(served, input_type)
            raise _again(failure.error)
        return await asyncio.shield(self._flight(served, input_type))

    def schedule(self, served: Deployment, input_type: InputType | None) -> None:
        """Probes `served` in the background, if it should be; costs little if not.

        For one that drifted it looks whether an operator released it.
        """
        membership = self.membership(served, input_type)
        if membership.state == "drifted":
            self._reread()
        elif membership.due or not membership.may_be_asked:
            failure = self._failures.get((served.id, input_type))
            if failure is None or self._now_s() - failure.at_s >= _rest_s(failure):
                self._flight(served, input_type)

    def delay_next_probe(self, served: Deployment, input_type: InputType | None) -> None:
        """Treat the last probe as failed, unless it did fail: the next one has to wait."""
        if (served.id, input_type) not in self._failures:
            self._record_failure(served, input_type, None)

    async def release(
        self, served: Deployment, input_type: InputType | None, *, accept: str | None = None
    ) -> Membership:
        """Probes a deployment that drifted, and releases it if it is again what it was.

        Args:
            served: Who drifted.
            input_type: With which.
            accept: If it is not: a new revision, under which it is accepted as it is now.

        Raises:
            ProviderError: It cannot be asked.
            StorageUnavailable: The release cannot be stored, and so is none.
        """
        probe = await self._probes.run(
            served, input_type, self._known.canary_texts(served.model.id)
        )
        proof = judge(self._known, served, input_type, probe)
        if proof.state == "drifted" and accept:
            makes = self._known.reference_deployment(served.model.id) == served
            reference = self._reference(served, accept, input_type, probe)
            self.spaces.load([await self._store.keep_reference(reference)])
            proof = msgspec.structs.replace(
                proof,
                state="reference" if makes else "differs",
                revision=accept,
                home=self._known.default_space(served.model.id),
                cosine=1.0 if makes else proof.cosine,
                norm_deviation=0.0 if makes else proof.norm_deviation,
                reason="" if makes else f"accepted as it is now, apart from {proof.home}",
                since_ms=probe.at_ms,
            )
        kept = await self._store.keep_proof(proof, release=proof.state != "drifted")
        self.spaces.load(proofs=[kept])
        return self.membership(served, input_type)

    async def aclose(self) -> None:
        """Ends what runs in the background."""
        tasks: list[asyncio.Task[Any]] = [*self._flights.values()]
        if self._rereading:
            tasks.append(self._rereading)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _flight(self, served: Deployment, input_type: InputType | None) -> asyncio.Task[Membership]:
        """The probe that runs, or a new one."""
        key = (served.id, input_type)
        flight = self._flights.get(key)
        if flight is None:
            flight = asyncio.create_task(self._run(served, input_type))
            self._flights[key] = flight
            flight.add_done_callback(lambda done: self._landed(key, done))
        return flight

    def _landed(self, key: Key, flight: asyncio.Task[Membership]) -> None:
        self._flights.pop(key, None)
        if not flight.cancelled():
            flight.exception()  # whoever waited was told, and the log

    async def _run(self, served: Deployment, input_type: InputType | None) -> Membership:
        try:
            membership = await self._settle(served, input_type)
        except ProviderError as error:
            self._record_failure(served, input_type, error)
            raise
        except Exception as error:  # the top of a background task
            _log.exception("probe broke", deployment=served.id)
            failure = ProviderError("failed", type(error).__name__)
            self._record_failure(served, input_type, failure)
            raise failure from error
        if membership.due or not membership.may_be_asked:
            self._record_failure(served, input_type, None)  # it could not be compared
        else:
            self._failures.pop((served.id, input_type), None)
        return membership

    def _record_failure(
        self, served: Deployment, input_type: InputType | None, error: ProviderError | None
    ) -> None:
        key = (served.id, input_type)
        before = self._failures.get(key)
        count = before.count + 1 if before else 1
        self._failures[key] = _Failure(count=count, at_s=self._now_s(), error=error)
        if error:
            # Of the reason nothing: a provider may repeat in it what it was sent.
            _log.warning(
                "probe failed",
                deployment=served.id,
                input_type=input_type,
                kind=error.kind,
                status=error.status,
                failures=count,
            )

    async def _settle(self, served: Deployment, input_type: InputType | None) -> Membership:
        """What `served` is found to be, after the home's reference is made if there is none.

        Raises:
            ProviderError: It cannot be asked.
        """
        known, model = self._known, served.model.id
        home = known.default_space(model)
        makes = await self._makes_home(served, input_type)
        if served.id in known.drifted:  # as was just found with another input type
            return self.membership(served, input_type)
        probe = await self._probes.run(served, input_type, known.canary_texts(model))
        if makes:
            await self._make(self._reference(served, home, input_type, probe))
        if known.default_space(model) != home:  # an operator, or another process, was faster
            return await self._settle(served, input_type)
        proof = judge(known, served, input_type, probe)
        missing = known.reference(model, proof.revision, input_type) is None
        if proof.state in {"differs", "unproven"} and missing:
            await self._make(self._reference(served, proof.revision, input_type, probe))
            proof = judge(known, served, input_type, probe)
        if proof.state == "drifted":
            # Unless another process was told to accept it.
            with contextlib.suppress(StorageUnavailable):
                await self.load()
            if known.default_space(model) != home:
                return await self._settle(served, input_type)
            proof = judge(known, served, input_type, probe)
        await self._believe(served, proof)
        return self.membership(served, input_type)

    def _reread(self) -> asyncio.Task[None]:
        """Looks what was stored, unless that was just looked for."""
        if self._rereading is None or (
            self._rereading.done() and self._now_s() - self._reread_s >= REREAD_S
        ):
            self._reread_s = self._now_s()
            self._rereading = asyncio.create_task(self._shared())
        return self._rereading

    async def _shared(self) -> None:
        before = set(self._known.drifted)
        with contextlib.suppress(StorageUnavailable):
            await self.load()
        after = set(self._known.drifted)
        for id in before ^ after:
            if served := self._known.deployment(id):
                event = "drifted" if id in after else "released"
                self._on_event(event, served, self.membership(served, None))

    async def _makes_home(self, served: Deployment, input_type: InputType | None) -> bool:
        """Whether the home's reference is missing and `served` is to make it.

        If another is to, that has happened when this returns, if it can.
        """
        known, model = self._known, served.model.id
        home, maker = known.default_space(model), known.reference_deployment(model)
        if known.reference(model, home, input_type):
            return False
        retired = maker is not None and maker.id in known.retired
        anchors = known.anchor_input_types(model, home, input_type)
        # Whoever agrees with supplied canaries makes the references of other input types, and so
        # does whoever agrees with what a maker left that is retired.
        if retired:
            makes = bool(anchors)
        else:
            makes = known.is_supplied(model) if maker is None else maker.id == served.id
        if makes:
            anchored = [await self._settled_before(served, each) for each in anchors]
            return all(each.state in {"reference", "proven"} for each in anchored)
        if maker is None or retired:
            return False
        try:
            if maker.provider == LOCAL:
                probe = await self._probes.run(maker, input_type, known.canary_texts(model))
                await self._make(self._reference(maker, home, input_type, probe))
            else:
                await self.prove(maker, input_type)
        except ProviderError as error:
            _log.warning("no reference", deployment=served.id, maker=maker.id, kind=error.kind)
        return False

    async def _settled_before(self, served: Deployment, input_type: InputType | None) -> Membership:
        membership = self.membership(served, input_type)
        if membership.state == "unproven":
            return await self.prove(served, input_type)
        return membership

    def _reference(
        self, served: Deployment, revision: str, input_type: InputType | None, probe: ProbeResult
    ) -> Reference:
        return Reference(
            model=served.model.id,
            revision=revision,
            input_type=input_type,
            texts=canaries.digest_texts(CANARIES),
            vectors=probe.vectors[: len(CANARIES)],
            made_by=served.id,
            made_ms=probe.at_ms,
        )

    async def _make(self, reference: Reference) -> None:
        """Stores a reference, then believes it, or the one that another process stored before."""
        try:
            reference = await self._store.keep_reference(reference)
        except StorageUnavailable:
            _log.warning("reference not stored", model=reference.model)
        self.spaces.load([reference])

    async def _believe(self, served: Deployment, proof: Proof) -> None:
        """Stores a proof, then believes it, or that it drifted as another process stored."""
        before = self._known.proof(served.id, proof.input_type)
        key = (served.id, proof.input_type)
        try:
            proof = await self._store.keep_proof(proof)
            self._unstored.discard(key)
        except StorageUnavailable:
            _log.warning("proof not stored", deployment=served.id)
            self._unstored.add(key)
        self.spaces.load(proofs=[proof])
        if before and (before.state, before.revision) == (proof.state, proof.revision):
            return
        membership = self.membership(served, proof.input_type)
        match proof.state:
            case "reference" | "proven":
                self._on_event("proven", served, membership)
            case "drifted":
                self._on_event("drifted", served, membership)
            case "differs":
                self._on_event("differs", served, membership)
            case "unproven":
                pass


def _rest_s(failure: _Failure) -> float:
    return min(REST_S * 2 ** (failure.count - 1), MAX_REST_S)


def _again(error: ProviderError) -> ProviderError:
    """Another of the same, for another request."""
    again = ProviderError(error.kind, error.reason, retry_after_s=error.retry_after_s)
    again.status = error.status
    return again
