"""Where the gateway listens, and where a client on this machine finds it."""

import json
import socket
from http.client import HTTPException
from urllib.request import ProxyHandler, build_opener

from embedway.config.settings import Settings

BACKLOG = 2048
"""Connections that wait to be accepted."""
ANSWER_TIMEOUT_S = 2
MAX_PAGE_BYTES = 2**24


class AddressError(Exception):
    """The gateway cannot listen there; the message says why and what to do."""


def bind(settings: Settings) -> socket.socket:
    """A socket bound to the address to listen on, which nobody listens on so far.

    Raises:
        AddressError: It is taken, or none of this machine's.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind)
        # Old connections of a server that ended do not count; one that listens does.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except (OSError, UnicodeError) as error:
        raise _refused(settings, error) from None
    return bound


def listen(bound: socket.socket, settings: Settings) -> None:
    """Listens on `bound`; from now on clients can connect.

    Raises:
        AddressError: Another process was faster since it was bound.
    """
    try:
        bound.listen(BACKLOG)
    except OSError as error:
        raise _refused(settings, error) from None


def _refused(settings: Settings, error: Exception) -> AddressError:
    reason = (isinstance(error, OSError) and error.strerror) or error
    return AddressError(
        f"Cannot listen on {settings.host}:{settings.port}: {reason}. Stop what uses it, or "
        "choose another with --host and --port, or EMBEDWAY_HOST and EMBEDWAY_PORT."
    )


def base_url(settings: Settings) -> str:
    """Where a client on this machine finds the gateway."""
    # What stands for all addresses is no address to connect to.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"


def is_answering(url: str) -> bool:
    """Whether a gateway is ready there."""
    try:
        return json.loads(read(f"{url}/readyz")) == {"status": "ready"}
    except (OSError, ValueError, HTTPException):
        return False


def read(url: str) -> bytes:
    """The body of a page of a gateway on this machine, up to `MAX_PAGE_BYTES`.

    Raises:
        OSError: Nothing answers in `ANSWER_TIMEOUT_S`, or with another status than 200.
        HTTPException: What answers does not speak HTTP.
    """
    opener = build_opener(ProxyHandler({}))  # this machine is not behind its own proxy
    with opener.open(url, timeout=ANSWER_TIMEOUT_S) as answer:
        return answer.read(MAX_PAGE_BYTES)
