"""Limits the requests in flight and the bytes of their bodies and answers, fairly.

Projects get fair shares, and so do the keys within a project. When there is no room, a request
whose body is still arriving is dropped for a caller that holds less.
`docs/decisions/0015-fair-shares.md` explains why.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from operator import attrgetter

from embedway.core.errors import ServiceOverloaded
from embedway.core.keys import Caller

SHARE = 7
"""A project may hold this many times what is left free, and a key this many times what its project
may still take. A single project thus gets seven eighths, and the next one finds room."""
MAX_ANONYMOUS = 64
"""The most requests in flight whose sender is known only from the body."""


class _Project:
    """The requests in flight of one project."""

    __slots__ = ("bytes", "id", "keys", "requests")

    def __init__(self, id: str | None) -> None:
        self.id = id
        self.keys: dict[str, _Key] = {}
        """The keys of the project that have requests in flight."""
        self.requests = 0
        self.bytes = 0


class _Key:
    """The requests in flight of one key."""

    __slots__ = ("arriving", "bytes", "id", "project", "requests")

    def __init__(self, id: str, project: _Project) -> None:
        self.id = id
        self.project = project
        self.arriving: dict[RequestSlot, None] = {}
        """The requests whose body is still arriving, oldest first."""
        self.requests = 0
        self.bytes = 0


_Measure = Callable[["_Project | _Key | RequestSlot"], int]
_requests: _Measure = attrgetter("requests")
_bytes: _Measure = attrgetter("bytes")


class Admission:
    """Counts requests in flight and decides which ones get in; one for the process."""

    def __init__(self, *, max_requests: int, max_bytes: int) -> None:
        self.max_requests = max_requests
        self.max_bytes = max_bytes
        self._projects: dict[str | None, _Project] = {}
        self._anonymous: dict[RequestSlot, None] = {}
        self.requests = 0
        self.bytes = 0
        self.is_draining = False
        """Whether the process is about to stop, so that answers close their connection."""
        self.is_replaced = False
        """Whether another process takes its place, so that traffic should still come."""

    def admit(self, slot: "RequestSlot", caller: Caller) -> None:
        """Count one more request of a caller.

        Raises:
            ServiceOverloaded: The gateway, the project or the key has all the requests it may have.
        """
        key = self._key(caller)
        try:
            while not self._has_place(key):
                self._make_room(key, 1, _requests)
        except ServiceOverloaded:
            self._forget(key)
            raise
        slot.key = key
        self._count(slot, key, 1)

    def admit_anonymous(self, slot: "RequestSlot") -> None:
        """Count a request whose sender is known only from the body.

        Raises:
            ServiceOverloaded: Too many such requests are in flight.
        """
        if len(self._anonymous) >= MAX_ANONYMOUS:
            slowest = next((each for each in self._anonymous if each.is_arriving), None)
            if slowest is None:
                raise ServiceOverloaded(
                    "Too many clients ask for tokens at once. Try again shortly."
                )
            slowest.displace()
        self._anonymous[slot] = None

    def hold(self, slot: "RequestSlot", size: int) -> None:
        """Count `size` more bytes of a body.

        Raises:
            ServiceOverloaded: The gateway, the project or the key holds all the bytes it may hold.
        """
        key = slot.key
        while key is not None and not self._has_bytes(key, size):
            self._make_room(key, size, _bytes)
        self.change(slot, size)

    def change(self, slot: "RequestSlot", size: int) -> None:
        """Count `size` more bytes, or fewer if negative, even if there is no room."""
        slot.bytes += size
        self.bytes += size
        key = slot.key
        if key is not None:
            key.bytes += size
            key.project.bytes += size

    def release(self, slot: "RequestSlot") -> None:
        """Give back everything that a request holds."""
        self.change(slot, -slot.bytes)
        key = slot.key
        if key is None:
            self._anonymous.pop(slot, None)
            return
        slot.key = None
        self._count(slot, key, -1)
        self._forget(key)

    async def wait_until_idle(self) -> None:
        """Return once no request is in flight."""
        while self.requests:  # noqa: ASYNC110  # once, at shutdown; an event costs each request
            await asyncio.sleep(0.01)

    def _has_place(self, key: _Key) -> bool:
        free = self.max_requests - self.requests
        return key.requests < SHARE * (SHARE * free - key.project.requests)

    def _has_bytes(self, key: _Key, size: int) -> bool:
        free = self.max_bytes - self.bytes - size
        if key.project.requests == 1:
            return free >= 0  # so that a single request can have the largest allowed body
        return key.bytes + size <= SHARE * (SHARE * free - key.project.bytes - size)

    def _make_room(self, key: _Key, amount: int, measure: _Measure) -> None:
        """Drop the request with an arriving body whose project and key hold most, for `key`.

        Raises:
            ServiceOverloaded: No such project or key holds more than this one would.
        """
        own = measure(key.project) + amount
        larger = [
            each for each in self._projects.values() if measure(each) > own or each is key.project
        ]
        largest = max(
            (
                (measure(project), measure(each), measure(slot), slot)
                for project in larger
                for each in project.keys.values()
                if each.arriving
                and (project is not key.project or measure(each) > measure(key) + amount)
                for slot in each.arriving
                if measure(slot)
            ),
            key=lambda ranked: ranked[:3],
            default=None,
        )
        if largest is None:
            raise ServiceOverloaded(
                f"This gateway is full, or your project has its share of it: {self.requests} "
                f"requests are in flight, {key.project.requests} of them yours. Try again shortly."
            )
        largest[-1].displace()

    def _key(self, caller: Caller) -> _Key:
        project_id = caller.project.id if caller.project else None
        project = self._projects.get(project_id)
        if project is None:
            project = self._projects[project_id] = _Project(project_id)
        key = project.keys.get(caller.key_id)
        if key is None:
            key = project.keys[caller.key_id] = _Key(caller.key_id, project)
        return key

    def _count(self, slot: "RequestSlot", key: _Key, number: int) -> None:
        slot.requests += number
        self.requests += number
        key.requests += number
        key.project.requests += number

    def _forget(self, key: _Key) -> None:
        if not key.requests:
            project = key.project
            del project.keys[key.id]
            if not project.keys:
                del self._projects[project.id]


class RequestSlot:
    """One request in flight, from its admission to the end of its answer."""

    __slots__ = (
        *("_admission", "_body_timeout", "bytes", "has_replies", "is_displaced", "key"),
        "requests",
    )

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._body_timeout: asyncio.Timeout | None = None
        self.key: _Key | None = None
        """The key it counts for; None before admission and for anonymous requests."""
        self.requests = 0
        self.bytes = 0
        self.has_replies = False
        """Whether bytes of a reply were counted."""
        self.is_displaced = False
        """Whether it was dropped for another request while its body was arriving."""

    @property
    def is_arriving(self) -> bool:
        """Whether the body is arriving."""
        return self._body_timeout is not None

    def begin_body(self, timeout: asyncio.Timeout) -> None:
        """Mark the body as arriving. Displacing the request makes `timeout` expire at once."""
        self._body_timeout = timeout
        if self.key is not None:
            self.key.arriving[self] = None

    def end_body(self) -> None:
        """Mark the body as no longer arriving."""
        self._body_timeout = None
        if self.key is not None:
            self.key.arriving.pop(self, None)

    def displace(self) -> None:
        """Drop this request, whose body is arriving, for another one."""
        timeout = self._body_timeout
        self.end_body()
        self.release()
        self.is_displaced = True
        if timeout is not None:
            with suppress(RuntimeError):  # it expires at this very moment
                timeout.reschedule(asyncio.get_running_loop().time())

    def hold(self, size: int) -> None:
        """Count `size` more bytes of the body; `Admission.hold` says what it raises."""
        if self.is_displaced:
            raise displaced_error()
        self._admission.hold(self, size)

    def reserve(self, size: int) -> None:
        """Count `size` bytes of a reply to ask for; `Admission.hold` says what it raises.

        Only the first reply of a request is refused, because the others are paid for in vain if
        one is missing. The only request in flight may ask for any.
        """
        if self.has_replies or self._admission.requests == 1:
            self.change(size)
        elif self.key is not None:
            self._admission.hold(self, size)
        self.has_replies = True

    def change(self, size: int) -> None:
        """Count `size` more bytes of replies, or fewer if negative, even if there is no room."""
        if self.key is not None:  # the request has not ended
            self._admission.change(self, size)

    def swap(self, size: int) -> None:
        """Count `size` bytes of the answer instead of the body and the replies."""
        self._admission.change(self, size - self.bytes)

    def release(self) -> None:
        """Give everything back. Calling it again does nothing."""
        self._admission.release(self)


def displaced_error() -> ServiceOverloaded:
    """Return the error for a request that was dropped while its body was arriving."""
    return ServiceOverloaded(
        "This gateway is full and dropped this request for a smaller one, because its body had "
        "not arrived whole. Send the body without pause, or fewer requests at a time."
    )
