"""Rate limits that several processes count together.

Each process remembers what it counted and reports it again if the shared count lost it. While the
shared count is unreachable, a process lets in its share of each limit, less what it knows was used.
Once the shared count is back, the process counts there again, but stays within its share until all
others have had time to report. So all processes together stay within the limit, except for requests
of others that a process had not heard of when the outage began.
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
from embedway.ratelimits.limiter import LimitKey, LimitReservation
from embedway.ratelimits.local_counter import LocalCounter, window_of
from embedway.ratelimits.refusal import (
    LimitRequest,
    check_countable,
    check_possible,
    check_room,
    keep_strictest,
    limit_error,
    make_reservation,
)
from embedway.ratelimits.shared_counts import (
    CountReply,
    CountRequest,
    SharedCounts,
    SharedCountsUnavailable,
)
from embedway.ratelimits.window import MAX_WINDOWS, SlidingWindow, WindowTable

HEARTBEAT_S = 1.0
"""Report to the shared count this often, also to find out whether it is back."""
GRACE_S = 1.5
"""Stay within the share for this long after the shared count is back. It is longer than a
heartbeat, so every process has reported by then."""
REFUSAL_CACHE_MS = 1000
"""Repeat a refusal without asking for this long; then another process may have settled for less."""
MAX_REPORTS = 100
"""The most limits to report in one call."""

State = Literal["away", "returning", "together"]


class SharedRateLimiter:
    """A `RateLimiter` for several processes."""

    def __init__(
        self,
        counts: SharedCounts,
        *,
        now_s: Callable[[], float] = time.monotonic,
        now_ms: Callable[[], int] = clock.now_ms,
        on_sharing_change: Callable[[str | None], None] = lambda _: None,
        max_windows: int = MAX_WINDOWS,
    ) -> None:
        """Count nothing until `start`.

        Args:
            counts: The count of all processes.
            now_s: A monotonic clock.
            now_ms: The wall clock. It is read once and stands in for the shared clock until that
                is known.
            on_sharing_change: Called at each change with the reason why limits are not counted
                together, or None if they are.
            max_windows: The most windows of end users to keep.
        """
        self._counts = counts
        self._now_s = now_s
        self._offset_ms = now_ms() - int(now_s() * 1000)
        """How far the shared clock is ahead of `now_s`."""
        self._last_ms = 0
        self._on_sharing_change = on_sharing_change
        self._counters = WindowTable(
            LocalCounter,
            max_windows=max_windows,
            on_drop=lambda counter: self._unreported.pop(counter, None),
        )
        self._state: State = "away"
        self._returned_s = 0.0
        self._epoch = ""
        self._replicas = 1
        self._outage = 0
        self._unreported: dict[LocalCounter, LimitKey] = {}
        """The counters that hold something the shared count does not know."""
        self._corrections: dict[LimitKey, dict[int, int]] = {}
        self._is_sending_corrections = False
        self._background = BackgroundTasks()
        self._heartbeats: asyncio.Task[None] | None = None

    @property
    def is_shared(self) -> bool:
        """Whether limits are counted together now."""
        return self._state == "together"

    async def start(self) -> None:
        """Sign on with the shared count and send heartbeats until `aclose`."""
        try:
            await self._sign_on()
        except SharedCountsUnavailable as error:
            self._on_sharing_change(str(error))
        else:
            self._start_sharing()
        self._heartbeats = self._background.schedule(self._send_heartbeats())

    async def aclose(self) -> None:
        """Report what is left to report, and sign off."""
        if self._heartbeats:
            self._heartbeats.cancel()
        await self._background.close()
        await self._counts.aclose()

    def check(
        self, limit_keys: Sequence[LimitKey], *, tokens: int, max_tokens: int | None = None
    ) -> None:
        """Refuse a request that has no room; `RateLimiter.check` explains the arguments."""
        check_possible(limit_keys, tokens)
        request = LimitRequest(limit_keys=limit_keys, tokens=tokens, max_tokens=max_tokens)
        now_ms = self._now_ms()
        counters = [self._counters.get(each) for each in limit_keys]
        if self._state == "together":
            windows = [_recent_refusal(each, now_ms) for each in counters]
            check_room(request, windows, now_ms=now_ms)
        else:
            shares = [each and self._share(each) for each in counters]
            check_room(request, shares, now_ms=now_ms, replicas=self._replicas)

    async def reserve(self, limit_keys: Sequence[LimitKey], *, tokens: int) -> LimitReservation:
        """Count a request; `RateLimiter.reserve` explains the arguments."""
        check_possible(limit_keys, tokens)
        request = LimitRequest(limit_keys=keep_strictest(limit_keys), tokens=tokens)
        now_ms = self._now_ms()
        check_countable(request.limit_keys, self._counters, now_ms)
        is_in_share = self._state != "together"
        if is_in_share:
            self._take_from_share(request, now_ms)
        if self._state != "away":
            try:
                reply = await self._count_request(request)
            except SharedCountsUnavailable as error:
                self._stop_sharing(str(error))
                reply = None
            if reply and reply.is_counted:
                return self._reserve_shared(request, reply, is_in_share=is_in_share)
            if reply:
                if is_in_share:
                    self._return_to_share(request, now_ms)
                raise self._refuse(request, reply)
            if not is_in_share:
                now_ms = self._now_ms()
                self._take_from_share(request, now_ms)
        return self._reserve_alone(request, now_ms)

    def settle(self, reservation: LimitReservation, *, tokens: int) -> None:
        """Correct a reservation's tokens here, and in the shared count in the background."""
        difference = tokens - reservation.tokens
        for key in reservation.limit_keys:
            counter = self._counters.get(key)
            if counter is None or key.limit.of != "tokens" or not difference:
                continue
            slot = reservation.at_ms // SLOT_MS[key.limit.per]
            counter.change(reservation.at_ms, difference)
            counter.refused = None
            if counter.share:
                counter.share.change(reservation.at_ms, difference)
            if self._state != "away" and counter not in self._unreported:
                corrections = self._corrections.setdefault(key, {})
                corrections[slot] = corrections.get(slot, 0) + difference
        if self._corrections and not self._is_sending_corrections:
            self._is_sending_corrections = True
            self._background.schedule(self._send_corrections())

    async def heartbeat(self) -> None:
        """Report to the shared count, and return to it if it is back."""
        try:
            await self._sign_on()
            if self._state != "together":
                await self._report()
        except SharedCountsUnavailable as error:
            self._stop_sharing(str(error))
            return
        if self._state == "away":
            self._state, self._returned_s = "returning", self._now_s()
        elif self._state == "returning" and self._now_s() - self._returned_s >= GRACE_S:
            self._start_sharing()

    async def _send_heartbeats(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            await self.heartbeat()

    def _now_ms(self) -> int:
        """Return the time on the shared clock, as far as it is known."""
        self._last_ms = max(self._last_ms, int(self._now_s() * 1000) + self._offset_ms)
        return self._last_ms

    # Counting together.

    async def _count_request(self, request: LimitRequest) -> CountReply | None:
        requests: list[CountRequest] = []
        reported: dict[LocalCounter, LimitKey] = {}
        for key in request.limit_keys:
            counter = self._counters.get(key)
            amount = key.limit.units(request.tokens)
            if counter and self._unreported.pop(counter, None):
                reported[counter] = key
                requests.append(_full_report(counter, key, amount=amount))
            else:
                requests.append(CountRequest(limit_key=key, amount=amount))
        return await self._count(requests, reported)

    async def _count(
        self, requests: Sequence[CountRequest], reported: Mapping[LocalCounter, LimitKey]
    ) -> CountReply | None:
        """Ask the shared count. Return None if it has lost its data and did nothing.

        Raises:
            SharedCountsUnavailable: It did not answer.
        """
        epoch = self._epoch
        try:
            reply = await self._counts.count(requests, epoch=epoch, now_ms=self._now_ms())
        except BaseException:
            self._unreported.update(reported)
            raise
        # Until it is back for good, some replicas may not have reported again.
        fewest = 1 if self._state == "together" and reply.epoch == epoch else self._replicas
        self._replicas = max(reply.replicas, fewest)
        self._offset_ms = reply.now_ms - int(self._now_s() * 1000)
        if reply.epoch == epoch:
            return reply
        self._unreported.update(reported)
        if reply.epoch != self._epoch:
            self._start_epoch(reply)
        return None

    def _start_epoch(self, reply: CountReply) -> None:
        """Plan to report everything, because the shared count is new or has lost its data."""
        is_first, self._epoch = not self._epoch, reply.epoch
        if is_first:
            self._last_ms = 0
            for _, counter in self._counters:
                counter.restart(reply.now_ms)
        self._unreported = {
            counter: key for key, counter in self._counters if counter.total or counter.total_counts
        }
        if not is_first:
            self._stop_sharing("it lost its data")

    async def _sign_on(self) -> None:
        if not await self._count((), {}):
            await self._count((), {})  # now in the new epoch

    async def _report(self) -> None:
        """Report everything that the shared count does not know."""
        while self._unreported:
            reported = dict(islice(self._unreported.items(), MAX_REPORTS))
            for counter in reported:
                del self._unreported[counter]
            requests = [_full_report(counter, key) for counter, key in reported.items()]
            await self._count(requests, reported)

    async def _send_corrections(self) -> None:
        try:
            while self._corrections:
                sent = dict(islice(self._corrections.items(), MAX_REPORTS))
                for key in sent:
                    del self._corrections[key]
                requests = [
                    CountRequest(limit_key=key, corrections=corrections)
                    for key, corrections in sent.items()
                ]
                await self._count(requests, {})
        except SharedCountsUnavailable as error:
            self._stop_sharing(str(error))
        finally:
            self._is_sending_corrections = False

    def _reserve_shared(
        self, request: LimitRequest, reply: CountReply, *, is_in_share: bool
    ) -> LimitReservation:
        """Count here what the shared count has counted."""
        for key, total in zip(request.limit_keys, reply.totals, strict=True):
            units = key.limit.units(request.tokens)
            counter = self._counters.get_or_create(key, reply.now_ms)
            counter.add(reply.now_ms, units)
            counter.record_total(total, reply.now_ms)
            if self._state != "together" and not is_in_share:
                # The outage began while this request was on its way.
                self._share(counter).add(self._now_ms(), units)
        return make_reservation(request, _windows(request, reply), now_ms=reply.now_ms)

    def _refuse(self, request: LimitRequest, reply: CountReply) -> RateLimitExceeded:
        windows = _windows(request, reply)
        for key, total, window in zip(request.limit_keys, reply.totals, windows, strict=True):
            # Without a count nothing is kept, because clients can make up any end user.
            if total and self._counters.has_room(key, reply.now_ms):
                counter = self._counters.get_or_create(key, reply.now_ms)
                counter.record_total(total, reply.now_ms, refused=window)
        return limit_error(request, windows, now_ms=reply.now_ms)

    # Counting alone.

    def _stop_sharing(self, reason: str) -> None:
        if self._state == "together":
            self._outage += 1
            self._on_sharing_change(reason)
        self._state = "away"
        # Full reports will include them.
        self._corrections.clear()

    def _start_sharing(self) -> None:
        self._state = "together"
        self._on_sharing_change(None)

    def _share(self, counter: LocalCounter) -> SlidingWindow:
        if counter.share is None or counter.outage != self._outage:
            counter.outage = self._outage
            return counter.start_share(self._replicas)
        return counter.share

    def _take_from_share(self, request: LimitRequest, now_ms: int) -> None:
        """Count a request against this process's share of each limit.

        Raises:
            RateLimitExceeded: A share has no room.
        """
        counters = [self._counters.get(each) for each in request.limit_keys]
        shares = [each and self._share(each) for each in counters]
        check_room(request, shares, now_ms=now_ms, replicas=self._replicas)
        for key in request.limit_keys:
            share = self._share(self._counters.get_or_create(key, now_ms))
            share.add(now_ms, key.limit.units(request.tokens))

    def _return_to_share(self, request: LimitRequest, now_ms: int) -> None:
        for key in request.limit_keys:
            counter = self._counters.get(key)
            if counter and counter.share:
                counter.share.change(now_ms, -key.limit.units(request.tokens))

    def _reserve_alone(self, request: LimitRequest, now_ms: int) -> LimitReservation:
        shares: list[SlidingWindow] = []
        for key in request.limit_keys:
            counter = self._counters.get_or_create(key, now_ms)
            shares.append(self._share(counter))
            counter.add(now_ms, key.limit.units(request.tokens))
            self._unreported[counter] = key
        return make_reservation(request, shares, now_ms=now_ms, replicas=self._replicas)


def _windows(request: LimitRequest, reply: CountReply) -> list[SlidingWindow]:
    return [
        window_of(key.limit.per, total)
        for key, total in zip(request.limit_keys, reply.totals, strict=True)
    ]


def _full_report(counter: LocalCounter, key: LimitKey, *, amount: int = 0) -> CountRequest:
    return CountRequest(
        limit_key=key,
        amount=amount,
        own_counts=counter.own_counts(),
        other_counts=counter.other_counts(),
    )


def _recent_refusal(counter: LocalCounter | None, now_ms: int) -> SlidingWindow | None:
    if counter and counter.refused and now_ms - counter.total_ms < REFUSAL_CACHE_MS:
        return counter.refused
    return None
