"""Asks deployments for the canaries' vectors, and keeps what their answers prove.

Owns when and how often they are asked. What an answer means is for `routing` to say.
"""

import asyncio
from contextlib import suppress
from typing import Any

import msgspec
import structlog

from embedway.catalog.deployment import Deployment
from embedway.core.errors import StorageUnavailable
from embedway.core.provider_error import ProviderError
from embedway.core.request import InputType
from embedway.core.usage import UsageRecord
from embedway.sending.sender import Sender
from embedway.spaces.canaries import NORM_TOLERANCE
from embedway.spaces.membership import Membership, SpaceMemberships
from embedway.spaces.probe import CanaryProbe, ProbeRecorder
from embedway.spaces.settling import OnEvent, ProofJudge
from embedway.spaces.store import SpaceStore

REST_S = 30
"""After a failed probe, doubled for each that follows, no background probe is begun."""
MAX_REST_S = 600
REST_OF_USERS_S = 2
"""Likewise where requests wait for it."""
REREAD_S = 5
"""Between two looks for what operators and other processes on this database found out."""

_log = structlog.get_logger("embedway.prober")

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
        self._spaces = spaces
        self._known = spaces.known
        self._store = store
        self._settling = ProofJudge(
            spaces=spaces,
            store=store,
            probes=CanaryProbe(
                sender=sender,
                fingerprint=spaces.fingerprint,
                now_ms=spaces.now_ms,
                record=record,
            ),
            prove=self.prove,
            load=self.load,
            on_event=on_event,
        )
        self._on_event = on_event
        self._now_s = sender.now_s
        self._flights: dict[Key, asyncio.Task[Membership]] = {}
        self._failures: dict[Key, _Failure] = {}
        self._rereading: asyncio.Task[None] | None = None
        self._reread_s = sender.now_s()

    async def load(self) -> None:
        """Learns what is stored and not yet known.

        Raises:
            StorageUnavailable: It cannot be read.
        """
        references, proofs = await self._store.load(known=self._known.references())
        unstored = self._settling.unstored
        self._spaces.load(
            references,
            (each for each in proofs if (each.deployment, each.input_type) not in unstored),
        )

    async def refresh(self) -> None:
        """Looks what other processes and operators found out, if that was a while ago."""
        age_s = self._now_s() - self._reread_s
        if age_s < REREAD_S or not self._spaces.any_probed:
            return
        reread = self._reread()
        if age_s >= 2 * REREAD_S:  # nobody asked for so long that much may have happened
            await asyncio.shield(reread)

    def changed(
        self,
        served: Deployment,
        input_type: InputType | None,
        *,
        width: int | None,
        norm: float | None,
        model: str | None,
    ) -> bool:
        """Whether an answer looks other than the proven ones; if so, `prove` before it is used.

        Args:
            served: Who answered.
            input_type: As asked for.
            width: Of the vectors; None if another than the model's own was asked for.
            norm: The length of one of them, likewise.
            model: What the answer calls the model, if it does.
        """
        looks = self._spaces.expected_signature(served, input_type)
        if looks is None:
            return False
        return (
            served.id in self._known.drifted  # while it answered
            or (model is not None and model not in looks.models and looks.width is not None)
            or (width is not None and looks.width is not None and width != looks.width)
            or (norm is not None and looks.of_length_one and abs(norm - 1) > NORM_TOLERANCE)
        )

    async def confirm(
        self,
        served: Deployment,
        input_type: InputType | None,
        *,
        width: int | None,
        norm: float | None,
        model: str | None,
    ) -> bool:
        """Whether an answer that looked `changed` is of the deployment's space all the same.

        Raises:
            ProviderError: The deployment cannot be probed.
        """
        before = self.membership(served, input_type)
        after = await self.prove(served, input_type)
        if (
            after.may_be_asked
            and after.revision == before.revision
            # The canaries may have been answered by the old model, this by the new.
            and not self.changed(served, input_type, width=width, norm=norm, model=model)
        ):
            return True
        if (served.id, input_type) not in self._failures:
            # Who changes all the time is not probed each time, but however many ask, again.
            self._failed(served, input_type, None)
        return False

    async def prove(self, served: Deployment, input_type: InputType | None) -> Membership:
        """Probes `served` now, together with whoever else waits for that.

        Raises:
            ProviderError: It cannot be asked.
        """
        if not self._spaces.is_probed(served):
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

    async def release(
        self, served: Deployment, input_type: InputType | None, *, accept: str | None = None
    ) -> Membership:
        """See `ProofJudge.release`."""
        return await self._settling.release(served, input_type, accept=accept)

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
            membership = await self._settling.settle(served, input_type)
        except ProviderError as error:
            self._failed(served, input_type, error)
            raise
        except Exception as error:  # the top of a background task
            _log.exception("probe broke", deployment=served.id)
            failure = ProviderError("failed", type(error).__name__)
            self._failed(served, input_type, failure)
            raise failure from error
        if membership.due or not membership.may_be_asked:
            self._failed(served, input_type, None)  # it could not be compared
        else:
            self._failures.pop((served.id, input_type), None)
        return membership

    def _failed(
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
        with suppress(StorageUnavailable):
            await self.load()
        after = set(self._known.drifted)
        for id in before ^ after:
            if served := self._known.deployment(id):
                event = "drifted" if id in after else "released"
                self._on_event(event, served, self.membership(served, None))


def _rest_s(failure: _Failure) -> float:
    return min(REST_S * 2 ** (failure.count - 1), MAX_REST_S)


def _again(error: ProviderError) -> ProviderError:
    """Another of the same, for another request."""
    again = ProviderError(error.kind, error.reason, retry_after_s=error.retry_after_s)
    again.status = error.status
    return again
