"""Counts one large reply among the bytes in flight, from before it is asked for."""

from embedway.core.batch import Batch
from embedway.core.in_flight import ReplyBytes, reply_bytes
from embedway.providers.split import LARGE_BYTES

BYTES_PER_NUMBER = 16
"""What a number takes in a reply or in the answer, as JSON. Base64 takes a third of it."""
USUAL_WIDTH = 1536
"""The dimensions to expect of a model whose width is unknown."""


class ReplyMemory:
    """The bytes that one reply counts for. They stay counted until the answer takes their place.

    Smaller replies than `LARGE_BYTES` are not counted.
    """

    __slots__ = ("_bytes", "_counted")

    def __init__(self, batch: Batch) -> None:
        """Count what the reply to `batch` will probably take.

        Raises:
            ServiceOverloaded: There is no room, and nothing has been paid for this request.
        """
        width = batch.width or batch.dimensions or USUAL_WIDTH
        expected = len(batch.items) * width * BYTES_PER_NUMBER
        self._counted: ReplyBytes | None = None
        self._bytes = 0
        if expected > LARGE_BYTES and (counted := reply_bytes.get()):
            counted.reserve(expected)
            self._counted, self._bytes = counted, expected

    def grow(self, size: int) -> None:
        """Count a reply of `size` bytes that has arrived, if it takes more than expected."""
        more = size - self._bytes
        counted = self._counted or reply_bytes.get()
        if counted and more > 0:
            counted.change(more)
            self._counted, self._bytes = counted, size

    def free(self) -> None:
        """Count nothing any more, because the reply is of no use."""
        if self._counted:
            self._counted.change(-self._bytes)
            self._counted, self._bytes = None, 0
