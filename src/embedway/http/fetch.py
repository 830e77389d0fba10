"""Fetches a small document from an address that an administrator declared."""

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
    """Return the document at `url`. Redirects are not followed.

    Args:
        url: The document's address.
        private_hosts: Hosts that may have private addresses, because the administrator named them.
        max_bytes: The largest document to accept.
        timeout_s: The longest time to wait.

    Raises:
        OSError: The document cannot be fetched, is too large or takes too long. The message says
            why.
    """
    try:
        target = URL(url)
        origin, path = str(target.origin()), target.raw_path_qs
    except ValueError:
        raise OSError(f"{url!r} is not a URL") from None
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
