"""Binds the gateway's address, and finds a gateway on this machine."""

import json
import socket
import sys
from contextlib import suppress
from http.client import HTTPException
from urllib.request import ProxyHandler, build_opener

from embedway.config.settings import Settings

BACKLOG = 2048
"""The most connections that wait to be accepted."""
ANSWER_TIMEOUT_S = 2
MAX_PAGE_BYTES = 2**24


class AddressError(Exception):
    """The gateway cannot listen on its address; the message says why and what to do."""


def bind(settings: Settings) -> socket.socket:
    """Return a socket bound to the address in the settings; it does not listen yet.

    Raises:
        AddressError: The address is in use, or does not belong to this machine.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind)
        # This ignores old connections of a server that ended, but not a server that listens.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except (OSError, UnicodeError) as error:
        raise _refused(settings, error) from None
    return bound


def listen(bound: socket.socket, settings: Settings) -> None:
    """Listen on `bound`, so that clients can connect.

    Raises:
        AddressError: Another process has started to listen since the socket was bound.
    """
    try:
        bound.listen(BACKLOG)
    except OSError as error:
        raise _refused(settings, error) from None


def divide(bound: socket.socket, count: int) -> list[socket.socket]:
    """Return `count` sockets in place of one that is bound, one for each worker.

    On Linux, the system divides new connections evenly between those that listen. Elsewhere they
    are one and the same socket, and whichever worker is first gets a connection.
    """
    if sys.platform != "linux":
        return [bound.dup() for _ in range(count)]
    divided: list[socket.socket] = []
    for _ in range(count):
        each = socket.socket(bound.family, bound.type)
        each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Nobody else can bind the address: `bind` does without this, and no other user may.
        each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        each.bind(bound.getsockname())
        divided.append(each)
    return divided


def stop_listening(divided: socket.socket) -> None:
    """Leave new connections to the other sockets of `divide`, until this one listens again.

    Connections that wait at it are reset.
    """
    if sys.platform == "linux":
        with suppress(OSError):  # it does not listen
            divided.shutdown(socket.SHUT_RD)


def _refused(settings: Settings, error: Exception) -> AddressError:
    reason = (isinstance(error, OSError) and error.strerror) or error
    return AddressError(
        f"Cannot listen on {settings.host}:{settings.port}: {reason}. Stop what uses it, or "
        "choose another with --host and --port, or EMBEDWAY_HOST and EMBEDWAY_PORT."
    )


def base_url(settings: Settings) -> str:
    """Return the URL at which a client on this machine reaches the gateway."""
    # Clients cannot connect to the addresses that mean "all addresses".
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"


def is_answering(url: str, *, page: str = "readyz", status: str = "ready") -> bool:
    """Return whether a gateway at this URL is ready, or says another `status` on another page."""
    try:
        return json.loads(fetch_page(f"{url}/{page}")) == {"status": status}
    except (OSError, ValueError, HTTPException):
        return False


def fetch_page(url: str) -> bytes:
    """Return the body of a gateway's page, up to `MAX_PAGE_BYTES`.

    Raises:
        OSError: Nothing answers within `ANSWER_TIMEOUT_S`, or the status is not 200.
        HTTPException: The answer is not HTTP.
    """
    opener = build_opener(ProxyHandler({}))  # this machine is not behind its own proxy
    with opener.open(url, timeout=ANSWER_TIMEOUT_S) as answer:
        return answer.read(MAX_PAGE_BYTES)
