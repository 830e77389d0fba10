"""Shares what this process takes on at once: requests, and the bytes of their bodies and answers.

Projects share it fairly, and within a project its keys do. When there is no room, a body that is
still arriving is given up for a caller that holds less. `docs/decisions/0015-fair-shares.md` says
why.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from operator import attrgetter

from embedway.core.errors import ServiceOverloaded
from embedway.core.keys import Caller

SHARE = 7
"""A project may hold this many times what is left free, and a key this many times what its project
may still take. A project alone thus gets seven eighths, and whoever comes next finds room."""
MAX_ANONYMOUS = 64
"""The most requests at once of which only the body says who sent them."""


class _Project:
    """What the requests of one project hold together."""

    __slots__ = ("bytes", "id", "keys", "requests")

    def __init__(self, id: str | None) -> None:
        self.id = id
        self.keys: dict[str, _Key] = {}
        """The keys of the project that hold something."""
        self.requests = 0
        self.bytes = 0


class _Key:
    """What the requests of one key hold together."""

    __slots__ = ("arriving", "bytes", "id", "project", "requests")

    def __init__(self, id: str, project: _Project) -> None:
        self.id = id
        self.project = project
        self.arriving: dict[RequestSlot, None] = {}
        """The requests whose body has not arrived whole, oldest first."""
        self.requests = 0
        self.bytes = 0


_Held = Callable[["_Project | _Key | RequestSlot"], int]
_requests: _Held = attrgetter("requests")
_bytes: _Held = attrgetter("bytes")


class Admission:
    """Counts what is in flight, decides who gets in, and knows when all is done."""

    def __init__(self, *, max_requests: int, max_bytes: int) -> None:
        self._max_requests = max_requests
        self._max_bytes = max_bytes
        self._projects: dict[str | None, _Project] = {}
        self._anonymous: dict[RequestSlot, None] = {}
        self.requests = 0
        self.bytes = 0
        self.draining = False
        """Set once the process is about to stop: answers then close their connection."""

    def admit(self, ticket: "RequestSlot", caller: Caller) -> None:
        """Count one more request of `caller`.

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
        ticket.key = key
        self._count(ticket, key, 1)

    def admit_anonymous(self, ticket: "RequestSlot") -> None:
        """Count a request that only its body says who sent.

        Raises:
            ServiceOverloaded: Too many such requests are being answered.
        """
        if len(self._anonymous) >= MAX_ANONYMOUS:
            slowest = next((each for each in self._anonymous if each.arriving), None)
            if slowest is None:
                raise ServiceOverloaded(
                    "Too many clients ask for tokens at once. Try again shortly."
                )
            slowest.displace()
        self._anonymous[ticket] = None

    def hold(self, ticket: "RequestSlot", size: int) -> None:
        """Count `size` more bytes of a body.

        Raises:
            ServiceOverloaded: The gateway, the project or the key holds all the bytes it may hold.
        """
        key = ticket.key
        while key is not None and not self._has_bytes(key, size):
            self._make_room(key, size, _bytes)
        self.change(ticket, size)

    def change(self, ticket: "RequestSlot", size: int) -> None:
        """Count `size` more bytes, or fewer, whether or not there is room."""
        ticket.bytes += size
        self.bytes += size
        key = ticket.key
        if key is not None:
            key.bytes += size
            key.project.bytes += size

    def release(self, ticket: "RequestSlot") -> None:
        """Take back all that `ticket` holds."""
        self.change(ticket, -ticket.bytes)
        key = ticket.key
        if key is None:
            self._anonymous.pop(ticket, None)
            return
        ticket.key = None
        self._count(ticket, key, -1)
        self._forget(key)

    async def wait_until_idle(self) -> None:
        """Return once no request is in flight."""
        while self.requests:  # noqa: ASYNC110  # once, at the end; an event would cost each request
            await asyncio.sleep(0.01)

    def _has_place(self, key: _Key) -> bool:
        free = self._max_requests - self.requests
        return key.requests < SHARE * (SHARE * free - key.project.requests)

    def _has_bytes(self, key: _Key, size: int) -> bool:
        free = self._max_bytes - self.bytes - size
        if key.project.requests == 1:
            return free >= 0  # the largest body passes, however few bytes there are
        return key.bytes + size <= SHARE * (SHARE * free - key.project.bytes - size)

    def _make_room(self, key: _Key, amount: int, held: _Held) -> None:
        """Give up one body that is arriving, of whoever holds most, for a request of `key`.

        Raises:
            ServiceOverloaded: Nobody with such a body holds more than the key or its project would.
        """
        mine = held(key.project) + amount
        larger = [
            each for each in self._projects.values() if held(each) > mine or each is key.project
        ]
        most = max(
            (
                (held(project), held(each), held(ticket), ticket)
                for project in larger
                for each in project.keys.values()
                if each.arriving and (project is not key.project or held(each) > held(key) + amount)
                for ticket in each.arriving
                if held(ticket)
            ),
            key=lambda ranked: ranked[:3],
            default=None,
        )
        if most is None:
            raise ServiceOverloaded(
                f"This gateway is full, or your project has its share of it: {self.requests} "
                f"requests are in flight, {key.project.requests} of them yours. Try again shortly."
            )
        most[-1].displace()

    def _key(self, caller: Caller) -> _Key:
        project_id = caller.project.id if caller.project else None
        project = self._projects.get(project_id)
        if project is None:
            project = self._projects[project_id] = _Project(project_id)
        key = project.keys.get(caller.key_id)
        if key is None:
            key = project.keys[caller.key_id] = _Key(caller.key_id, project)
        return key

    def _count(self, ticket: "RequestSlot", key: _Key, number: int) -> None:
        ticket.requests += number
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
    """One request's share of what is in flight, from its admission to the end of its answer."""

    __slots__ = ("_admission", "_arriving", "bytes", "displaced", "key", "requests")

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._arriving: asyncio.Timeout | None = None
        self.key: _Key | None = None
        """What it counts with; None before it is admitted, and for anonymous requests."""
        self.requests = 0
        self.bytes = 0
        self.displaced = False
        """Whether it was given up for another request while its body was arriving."""

    @property
    def arriving(self) -> bool:
        """Whether its body is arriving."""
        return self._arriving is not None

    def admit(self, caller: Caller) -> None:
        """Take a place among the requests of `caller`; see `Admission.admit`."""
        self._admission.admit(self, caller)

    def admit_anonymous(self) -> None:
        """Take a place among the anonymous requests; see `Admission.admit_anonymous`."""
        self._admission.admit_anonymous(self)

    def begin_body(self, timeout: asyncio.Timeout) -> None:
        """Note that the body is arriving; if it has to make room, `timeout` ends at once."""
        self._arriving = timeout
        if self.key is not None:
            self.key.arriving[self] = None

    def end_body(self) -> None:
        """Note that nothing more of the body is waited for."""
        self._arriving = None
        if self.key is not None:
            self.key.arriving.pop(self, None)

    def displace(self) -> None:
        """Give up the request, whose body is arriving, for another one."""
        timeout = self._arriving
        self.end_body()
        self.release()
        self.displaced = True
        if timeout is not None:
            with suppress(RuntimeError):  # its time is up in this very moment
                timeout.reschedule(asyncio.get_running_loop().time())

    def hold(self, size: int) -> None:
        """Hold `size` more bytes of the body; see `Admission.hold`."""
        if self.displaced:
            raise displaced_error()
        self._admission.hold(self, size)

    def swap(self, size: int) -> None:
        """Hold `size` bytes of the answer instead of the body; what is done is not refused."""
        self._admission.change(self, size - self.bytes)

    def release(self) -> None:
        """Give everything back, also if called again."""
        self._admission.release(self)


def displaced_error() -> ServiceOverloaded:
    """The answer to a request that was given up while its body was arriving."""
    return ServiceOverloaded(
        "This gateway is full, and gave up this request for one that holds less, for its body had "
        "not arrived whole. Send the body without pause, or fewer requests at a time."
    )
