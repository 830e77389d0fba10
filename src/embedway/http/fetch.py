"""Fetches a small document from an address that an administrator named, as providers are called.

Owns what may come back and how long that may take; what the document is, is not known here.
"""

import asyncio
from collections.abc import Collection
from http import HTTPStatus

from yarl import URL

from embedway.core.provider_error import ProviderError
from embedway.http.call import HttpCall
from embedway.http.client import HttpClient

MAX_BYTES = 256 * 1024
TIMEOUT_S = 5.0


async def fetch_document(
    url: str,
    *,
    private_hosts: Collection[str] = (),
    max_bytes: int = MAX_BYTES,
    timeout_s: float = TIMEOUT_S,
) -> bytes:
    """The document at `url`; a redirect is not followed.

    Args:
        url: Its address.
        private_hosts: Such as may be at private addresses, for the administrator named them.
        max_bytes: The longest document to take.
        timeout_s: The longest wait for it.

    Raises:
        OSError: It cannot be had, is too large or takes too long; with the reason.
    """
    try:
        target = URL(url)
        origin, path = str(target.origin()), target.raw_path_qs
    except ValueError:
        raise OSError(f"{url!r} is no address") from None
    server = HttpClient(origin, allow_private=target.host in private_hosts, max_in_flight=1)
    try:
        async with asyncio.timeout(timeout_s):
            call = HttpCall(path=path, method="GET")
            reply = await server.send(call, headers={}, max_bytes=max_bytes)
    except ProviderError as error:
        cause = f" ({type(error.__cause__).__name__})" if error.__cause__ else ""
        raise OSError(f"{url} cannot be fetched: {error.kind}{cause}") from None
    except TimeoutError:
        raise TimeoutError(f"{url} took longer than {timeout_s:g} s") from None
    finally:
        await server.aclose()
    if reply.status != HTTPStatus.OK:
        raise OSError(f"{url} answered {reply.status}, not {HTTPStatus.OK}")
    return reply.body
