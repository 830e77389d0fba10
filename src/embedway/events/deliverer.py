"""Delivers events to webhooks in the background, and retries those that fail.

Each webhook has a task of its own, so that a slow receiver delays no other. Nothing here is on the
path of a request: whoever has an event hands it over without waiting.
"""

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial

import structlog

from embedway.core.errors import StorageUnavailable
from embedway.events.event import Event, Webhook
from embedway.events.outbox import Delivery, Outbox
from embedway.events.sending import Answer, send

POLL_S = 1.0
"""How often to look for what is to be stored and for deliveries that are due."""
FIRST_WAIT_S = 5.0
LONGEST_WAIT_S = 3600.0
"""The wait before another try doubles from the first to the longest."""
JITTER = 0.1
"""Shorten waits at random by up to this share, to spread out what waits for one receiver."""
GIVE_UP_MS = 3 * 86_400_000
"""How long after an event to try."""
OUTAGE_GIVE_UP_MS = 3_600_000
"""How long to try to deliver an event of the database, which only this process knows of."""
MAX_QUEUED = 200
"""The most events that wait to be stored. Further ones are dropped."""
MAX_UNSTORED = 20
"""The most deliveries under way that are not in the database. Further ones are dropped."""
COUNT_S = 15.0
"""How often to count the deliveries that wait."""
PRUNE_S = 3600.0
CLOSE_S = 2.0
"""How long shutdown waits for tries under way, and for the last events to be stored."""

OnResult = Callable[[str, str], None]
"""Receives a webhook's name and what became of a try: `delivered`, `failed`, `given up` or
`dropped`."""

_log = structlog.get_logger("embedway.webhooks")


class Deliverer:
    """Sends the events of this process and the waiting ones of all; one for the process."""

    def __init__(self, outbox: Outbox, *, on_result: OnResult) -> None:
        """Start nothing yet; `use` does. Call it in an event loop."""
        self.waiting = 0
        """How many deliveries wait in the database, as last counted."""
        self._outbox = outbox
        self._on_result = on_result
        self._loop = asyncio.get_running_loop()
        self._queued: deque[Event] = deque()
        self._senders: dict[str, tuple[Webhook, asyncio.Task[None]]] = {}
        self._keepers: list[asyncio.Task[None]] = []
        self._unstored: set[asyncio.Task[None]] = set()
        self._closing = asyncio.Event()

    def use(self, webhooks: Sequence[Webhook]) -> None:
        """Deliver to these webhooks from now on. Those that did not change are not interrupted."""
        self._outbox.webhooks = webhooks
        wanted = {each.name: each for each in webhooks}
        for name, (webhook, task) in list(self._senders.items()):
            if wanted.get(name) != webhook:
                task.cancel()
                del self._senders[name]
        for name in wanted.keys() - self._senders.keys():
            self._senders[name] = wanted[name], self._start(partial(self._send_next, wanted[name]))
        if webhooks and not self._keepers:
            self._keepers = [
                self._start(self._store_queued),
                self._start(self._count_waiting, every_s=COUNT_S),
                self._start(self._outbox.prune, every_s=PRUNE_S),
            ]

    def publish(self, event: Event) -> None:
        """Store an event in the background, if it is news to all replicas."""
        if len(self._queued) < MAX_QUEUED:
            if self._outbox.webhooks:
                self._queued.append(event)
            return
        for webhook in self._outbox.webhooks:
            if webhook.wants(event):
                self._on_result(webhook.name, "dropped")

    def publish_unstored(self, event: Event) -> None:
        """Send an event from this process alone. Any thread may call this."""
        if self._outbox.webhooks and not self._closing.is_set():
            self._loop.call_soon_threadsafe(self._send_unstored, event)

    async def aclose(self) -> None:
        """End all tasks. Tries under way get `CLOSE_S` to end; what is stored is tried again."""
        self._closing.set()
        tasks = {*self._keepers, *self._unstored, *(task for _, task in self._senders.values())}
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=CLOSE_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        with suppress(StorageUnavailable, TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await self._store_queued()

    def _start(
        self, step: Callable[[], Awaitable[object]], *, every_s: float = POLL_S
    ) -> asyncio.Task[None]:
        """Run `step` again and again: at once after it returns True, else after a pause."""

        async def run() -> None:
            while not self._closing.is_set():
                is_busy = None
                try:
                    is_busy = await step()
                except StorageUnavailable:
                    pass  # it is logged where the database is used
                except Exception:  # noqa: BLE001  # the top of a background task
                    _log.exception("webhooks broke")
                if is_busy is not True:
                    await self._pause(every_s)

        return asyncio.create_task(run())

    async def _send_next(self, webhook: Webhook) -> bool:
        """Try the next delivery; return whether there was one."""
        delivery = await self._outbox.claim(webhook.name)
        if delivery is not None:
            await self._try(webhook, delivery)
        return delivery is not None

    async def _store_queued(self) -> None:
        """Store what is published, in order. If the database is away, it stays queued."""
        while self._queued:
            event = self._queued.popleft()
            try:
                await self._outbox.add_news(event)
            except StorageUnavailable:
                self._queued.appendleft(event)
                raise

    async def _count_waiting(self) -> None:
        self.waiting = await self._outbox.count_waiting()

    async def _try(self, webhook: Webhook, delivery: Delivery) -> None:
        event, now_ms = delivery.event, self._outbox.now_ms
        answer = await send(webhook, event, now_ms=now_ms)
        if answer.delivered:
            self._on_result(webhook.name, "delivered")
            await self._outbox.finish(delivery, state="delivered", result=answer.text)
            return
        next_ms = now_ms() + round(_wait_s(delivery.tries) * 1000)
        gives_up = next_ms - event.at_ms > GIVE_UP_MS
        self._report_failure(webhook, event, answer, gives_up=gives_up)
        state = "failed" if gives_up else "waiting"
        await self._outbox.finish(delivery, state=state, result=answer.text, next_ms=next_ms)

    def _send_unstored(self, event: Event) -> None:
        if self._closing.is_set():
            return
        for webhook in self._outbox.webhooks:
            if webhook.wants(event):
                if len(self._unstored) >= MAX_UNSTORED:
                    self._on_result(webhook.name, "dropped")
                    continue
                task = asyncio.create_task(self._try_unstored(webhook, event))
                self._unstored.add(task)
                task.add_done_callback(self._unstored.discard)

    async def _try_unstored(self, webhook: Webhook, event: Event) -> None:
        now_ms = self._outbox.now_ms
        tries = 0
        while not self._closing.is_set() or not tries:
            answer = await send(webhook, event, now_ms=now_ms)
            tries += 1
            if answer.delivered:
                self._on_result(webhook.name, "delivered")
                return
            wait_s = _wait_s(tries)
            gives_up = now_ms() + wait_s * 1000 - event.at_ms > OUTAGE_GIVE_UP_MS
            self._report_failure(webhook, event, answer, gives_up=gives_up)
            if gives_up:
                return
            await self._pause(wait_s)

    async def _pause(self, seconds: float) -> None:
        """Wait, or less if shutdown begins."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closing.wait()

    def _report_failure(
        self, webhook: Webhook, event: Event, answer: Answer, *, gives_up: bool
    ) -> None:
        self._on_result(webhook.name, "given up" if gives_up else "failed")
        log = _log.error if gives_up else _log.warning
        log(
            "event given up" if gives_up else "event not delivered",
            webhook=webhook.name,
            event_id=event.id,
            type=event.type,
            reason=answer.text,
        )


def _wait_s(tries: int) -> float:
    longest = min(FIRST_WAIT_S * 2 ** min(tries - 1, 20), LONGEST_WAIT_S)
    return longest * random.uniform(1 - JITTER, 1.0)
