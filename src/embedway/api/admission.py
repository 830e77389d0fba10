"""How much this process takes on at once: requests, and the bytes of their bodies and answers."""

import asyncio

from embedway.core.errors import Overloaded


class Admission:
    """Counts what is in flight, refuses what is too much, and knows when all is done."""

    def __init__(self, *, max_requests: int, max_bytes: int) -> None:
        self._max_requests = max_requests
        self._max_bytes = max_bytes
        self.requests = 0
        self.bytes = 0
        self.draining = False
        """Set once the process is about to stop: answers then close their connection."""

    def admit(self) -> None:
        """Counts one more request.

        Raises:
            Overloaded: Too many requests are in flight.
        """
        if self.requests >= self._max_requests:
            raise Overloaded(
                f"{self.requests} requests are in flight, the most this gateway takes at once. "
                "Try again shortly."
            )
        self.requests += 1

    def hold(self, size: int) -> None:
        """Accounts for `size` more bytes of a body.

        Raises:
            Overloaded: Bodies in flight would be over the cap.
        """
        if self.bytes + size > self._max_bytes:
            raise Overloaded("The requests in flight hold too many bytes. Try again shortly.")
        self.bytes += size

    async def idle(self) -> None:
        """Returns once no request is in flight."""
        while self.requests:  # noqa: ASYNC110  # once, at the end; an event would cost each request
            await asyncio.sleep(0.01)


class Ticket:
    """One request's share of what is in flight, from its head to the last byte of its answer."""

    __slots__ = ("_admission", "_bytes", "_requests")

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._requests = 0
        self._bytes = 0

    def admit(self) -> None:
        """See `Admission.admit`."""
        self._admission.admit()
        self._requests = 1

    def hold(self, size: int) -> None:
        """See `Admission.hold`."""
        self._admission.hold(size)
        self._bytes += size

    def swap(self, size: int) -> None:
        """Holds `size` bytes of the answer instead of the body; what is done is not refused."""
        self._admission.bytes += size - self._bytes
        self._bytes = size

    def release(self) -> None:
        """Gives all of it back, also if called again."""
        self._admission.requests -= self._requests
        self._admission.bytes -= self._bytes
        self._requests = self._bytes = 0
