"""Limits as all processes count them together, and a share of each while they cannot.

Each process knows what it counted itself, and tells it again where it was lost or not heard. While
the shared count is away a process lets in its share of each limit, less what it knows was used.
When that is back, it counts there again, but stays within its share until all the others have told
what they counted meanwhile. So all together never let in more than the limit, but for what a
process had not heard of the others when it was cut off. Knows no Redis.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Literal

from embedway.concurrency.background import BackgroundTasks
from embedway.core import clock
from embedway.core.errors import RateLimitExceeded
from embedway.core.limit import SLOT_MS
from embedway.ratelimits.key import LimitKey
from embedway.ratelimits.limiter import LimitReservation
from embedway.ratelimits.local_counter import LocalCounter, window_of
from embedway.ratelimits.refusal import (
    LimitRequest,
    check_countable,
    check_possible,
    check_room,
    limit_error,
    reservation,
    strictest,
)
from embedway.ratelimits.shared_counts import (
    CountReply,
    CountRequest,
    SharedCounts,
    SharedCountsUnavailable,
)
from embedway.ratelimits.window import MAX_METERS, SlidingWindow, WindowTable

PULSE_S = 1.0
"""A process is heard of so often; while the shared count is away, it is tried again so often."""
GRACE_S = 1.5
"""After its return; longer than a pulse, so that by then every process has told what it counted."""
KNOWN_MS = 1000
"""For which a refusal is taken to stand: another process may settle for less than it reserved."""
BATCH = 100
"""Meters that are told of at once."""

State = Literal["away", "returning", "together"]


class SharedRateLimiter:
    """The limiter of `embedway.ratelimits.limiter.RateLimiter` for several processes."""

    def __init__(
        self,
        counts: SharedCounts,
        *,
        now_s: Callable[[], float] = time.monotonic,
        now_ms: Callable[[], int] = clock.now_ms,
        on_away: Callable[[str | None], None] = lambda _: None,
        max_meters: int = MAX_METERS,
    ) -> None:
        """Count nothing until `start`.

        Args:
            counts: What all processes count together.
            now_s: A clock that only goes forward.
            now_ms: The wall clock, asked once: it stands in for the shared count's clock until that
                is heard of.
            on_away: Is told, at each change, why limits are not counted together; None if they are.
            max_meters: That are kept.
        """
        self._counts = counts
        self._now_s = now_s
        self._ahead_ms = now_ms() - int(now_s() * 1000)
        self._last_ms = 0
        self._on_away = on_away
        self._parts = WindowTable(
            LocalCounter, most=max_meters, on_drop=lambda part: self._untold.pop(part, None)
        )
        self._state: State = "away"
        self._returned_s = 0.0
        self._epoch = ""
        self._replicas = 1
        self._absence = 0
        self._untold: dict[LocalCounter, LimitKey] = {}
        """What this process counted and the shared count does not know of."""
        self._changes: dict[LimitKey, dict[int, int]] = {}
        self._telling = False
        self._background = BackgroundTasks()
        self._beating: asyncio.Task[None] | None = None

    @property
    def shared(self) -> bool:
        """Whether limits are counted together at the moment."""
        return self._state == "together"

    async def start(self) -> None:
        """Says hello to the other processes, and goes on to be heard of until `aclose`."""
        try:
            await self._contact()
        except SharedCountsUnavailable as error:
            self._on_away(str(error))
        else:
            self._together()
        self._beating = self._background.schedule(self._beat())

    async def aclose(self) -> None:
        """Tells what is still to be told, and takes leave."""
        if self._beating:
            self._beating.cancel()
        await self._background.close()
        await self._counts.aclose()

    def check(self, meters: Sequence[LimitKey], *, tokens: int, at_most: int | None = None) -> None:
        """See `embedway.ratelimits.limiter.RateLimiter.check`."""
        check_possible(meters, tokens)
        request = LimitRequest(meters=meters, tokens=tokens, at_most=max(at_most or 0, tokens))
        now_ms = self._now_ms()
        parts = [self._parts.get(each) for each in meters]
        if self._state == "together":
            windows = [_refused_lately(each, now_ms) for each in parts]
            check_room(request, windows, now_ms=now_ms)
        else:
            windows = [part and self._share(part) for part in parts]
            check_room(request, windows, now_ms=now_ms, replicas=self._replicas)

    async def reserve(self, meters: Sequence[LimitKey], *, tokens: int) -> LimitReservation:
        """See `embedway.ratelimits.limiter.RateLimiter.reserve`."""
        check_possible(meters, tokens)
        request = LimitRequest(meters=strictest(meters), tokens=tokens, at_most=tokens)
        now_ms = self._now_ms()
        check_countable(request.meters, self._parts, now_ms)
        taken = self._state != "together"
        if taken:
            self._take(request, now_ms)
        if self._state != "away":
            try:
                told = await self._ask(request)
            except SharedCountsUnavailable as error:
                self._leave(str(error))
                told = None
            if told and told.counted:
                return self._counted(request, told, taken=taken)
            if told:
                if taken:
                    self._put_back(request, now_ms)
                raise self._refused(request, told)
            if not taken:
                now_ms = self._now_ms()
                self._take(request, now_ms)
        return self._counted_alone(request, now_ms)

    def settle(self, reservation: LimitReservation, *, tokens: int) -> None:
        """Correct the tokens of a reservation here, and for other processes in the background."""
        more = tokens - reservation.tokens
        for meter in reservation.meters:
            part = self._parts.get(meter)
            if part is None or meter.limit.of != "tokens" or not more:
                continue
            slot = reservation.at_ms // SLOT_MS[meter.limit.per]
            part.change(reservation.at_ms, more)
            part.refused = None
            if part.share:
                part.share.change(reservation.at_ms, more)
            if self._state != "away" and part not in self._untold:
                changes = self._changes.setdefault(meter, {})
                changes[slot] = changes.get(slot, 0) + more
        if self._changes and not self._telling:
            self._telling = True
            self._background.schedule(self._tell_changes())

    async def heartbeat(self) -> None:
        """Lets the others hear of this process; tries whether the shared count is back."""
        try:
            await self._contact()
            if self._state != "together":
                await self._tell()
        except SharedCountsUnavailable as error:
            self._leave(str(error))
            return
        if self._state == "away":
            self._state, self._returned_s = "returning", self._now_s()
        elif self._state == "returning" and self._now_s() - self._returned_s >= GRACE_S:
            self._together()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(PULSE_S)
            await self.heartbeat()

    def _now_ms(self) -> int:
        """What the time is on the clock of the shared count, as far as is known."""
        self._last_ms = max(self._last_ms, int(self._now_s() * 1000) + self._ahead_ms)
        return self._last_ms

    # What all count together.

    async def _ask(self, request: LimitRequest) -> CountReply | None:
        asks: list[CountRequest] = []
        telling: dict[LocalCounter, LimitKey] = {}
        for meter in request.meters:
            part = self._parts.get(meter)
            amount = meter.limit.units(request.tokens)
            if part and self._untold.pop(part, None):
                telling[part] = meter
                asks.append(_all_of(part, meter, amount=amount))
            else:
                asks.append(CountRequest(meter=meter, amount=amount))
        return await self._count(asks, telling)

    async def _count(
        self, asks: Sequence[CountRequest], telling: Mapping[LocalCounter, LimitKey]
    ) -> CountReply | None:
        """What the shared count answers; None if it has lost what it knew, and did nothing.

        Raises:
            SharedCountsUnavailable: It did not answer.
        """
        epoch = self._epoch
        try:
            told = await self._counts.count(asks, epoch=epoch, now_ms=self._now_ms())
        except BaseException:
            self._untold.update(telling)
            raise
        # While it is coming back, not all may have been heard of again.
        known = 1 if self._state == "together" and told.epoch == epoch else self._replicas
        self._replicas = max(told.replicas, known)
        self._ahead_ms = told.now_ms - int(self._now_s() * 1000)
        if told.epoch == epoch:
            return told
        self._untold.update(telling)
        if told.epoch != self._epoch:
            self._begin(told)
        return None

    def _begin(self, told: CountReply) -> None:
        """Notes that the shared count knows nothing, of this process or of any."""
        first, self._epoch = not self._epoch, told.epoch
        if first:
            self._last_ms = 0
            for _, part in self._parts:
                part.restart(told.now_ms)
        self._untold = {part: meter for meter, part in self._parts if part.total or part.heard}
        if not first:
            self._leave("it has lost what it knew")

    async def _contact(self) -> None:
        if not await self._count((), {}):
            await self._count((), {})

    async def _tell(self) -> None:
        """Tells what this process counted and nobody else knows of, until that is nothing."""
        while self._untold:
            telling = dict(islice(self._untold.items(), BATCH))
            for part in telling:
                del self._untold[part]
            asks = [_all_of(part, meter) for part, meter in telling.items()]
            await self._count(asks, telling)

    async def _tell_changes(self) -> None:
        try:
            while self._changes:
                telling = dict(islice(self._changes.items(), BATCH))
                for meter in telling:
                    del self._changes[meter]
                await self._count(
                    [
                        CountRequest(meter=meter, changes=changes)
                        for meter, changes in telling.items()
                    ],
                    {},
                )
        except SharedCountsUnavailable as error:
            self._leave(str(error))
        finally:
            self._telling = False

    def _counted(self, request: LimitRequest, told: CountReply, *, taken: bool) -> LimitReservation:
        """Notes what was counted together."""
        for meter, total in zip(request.meters, told.totals, strict=True):
            asked = meter.limit.units(request.tokens)
            part = self._parts.used(meter, told.now_ms)
            part.add(told.now_ms, asked)
            part.record_total(total, told.now_ms)
            if self._state != "together" and not taken:
                # It was left while this request was under way.
                self._share(part).add(self._now_ms(), asked)
        return reservation(request, _windows(request, told), now_ms=told.now_ms)

    def _refused(self, request: LimitRequest, told: CountReply) -> RateLimitExceeded:
        windows = _windows(request, told)
        for meter, total, window in zip(request.meters, told.totals, windows, strict=True):
            # Who never was let in is not kept: names of end users are easily made up.
            if total and self._parts.has_room(meter, told.now_ms):
                part = self._parts.used(meter, told.now_ms)
                part.record_total(total, told.now_ms, refused=window)
        return limit_error(request, windows, now_ms=told.now_ms)

    # What this process counts alone.

    def _leave(self, reason: str) -> None:
        if self._state == "together":
            self._absence += 1
            self._on_away(reason)
        self._state = "away"
        # Who counted what is told as a whole in the end.
        self._changes.clear()

    def _together(self) -> None:
        self._state = "together"
        self._on_away(None)

    def _share(self, part: LocalCounter) -> SlidingWindow:
        if part.share is None or part.absence != self._absence:
            part.absence = self._absence
            return part.start_share(self._replicas)
        return part.share

    def _take(self, request: LimitRequest, now_ms: int) -> None:
        """Counts a request against the share of this process.

        Raises:
            RateLimitExceeded: It has no room for it.
        """
        parts = [self._parts.get(each) for each in request.meters]
        shares = [part and self._share(part) for part in parts]
        check_room(request, shares, now_ms=now_ms, replicas=self._replicas)
        for meter in request.meters:
            share = self._share(self._parts.used(meter, now_ms))
            share.add(now_ms, meter.limit.units(request.tokens))

    def _put_back(self, request: LimitRequest, now_ms: int) -> None:
        for meter in request.meters:
            part = self._parts.get(meter)
            if part and part.share:
                asked = meter.limit.units(request.tokens)
                part.share.change(now_ms, -asked)

    def _counted_alone(self, request: LimitRequest, now_ms: int) -> LimitReservation:
        shares: list[SlidingWindow] = []
        for meter in request.meters:
            part = self._parts.used(meter, now_ms)
            shares.append(self._share(part))
            part.add(now_ms, meter.limit.units(request.tokens))
            self._untold[part] = meter
        return reservation(request, shares, now_ms=now_ms, replicas=self._replicas)


def _windows(request: LimitRequest, told: CountReply) -> list[SlidingWindow]:
    """What all processes counted of each meter of `request`."""
    return [
        window_of(meter.limit.per, total)
        for meter, total in zip(request.meters, told.totals, strict=True)
    ]


def _all_of(part: LocalCounter, meter: LimitKey, *, amount: int = 0) -> CountRequest:
    """Tells all that is known here of a meter."""
    return CountRequest(meter=meter, amount=amount, own=part.own(), others=part.other_counts())


def _refused_lately(part: LocalCounter | None, now_ms: int) -> SlidingWindow | None:
    if part and part.refused and now_ms - part.heard_ms < KNOWN_MS:
        return part.refused
    return None
