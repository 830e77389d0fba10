"""Defines how a provider's reply is counted among the bytes that the gateway holds."""

from contextvars import ContextVar
from typing import Protocol


class ReplyBytes(Protocol):
    """Counts the bytes of replies for one request."""

    def reserve(self, size: int) -> None:
        """Count `size` bytes of a reply that has not been asked for.

        Raises:
            ServiceOverloaded: There is no room. It is raised only before a request's first reply,
                because what a provider has done for the request is paid for.
        """
        ...

    def change(self, size: int) -> None:
        """Count `size` more bytes, or fewer if negative, even if there is no room."""
        ...


reply_bytes: ContextVar[ReplyBytes | None] = ContextVar("reply_bytes", default=None)
"""Where the replies for the current request are counted; None if nowhere."""
