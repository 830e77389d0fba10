"""Sends one event to one webhook, once."""

import asyncio
from collections.abc import Callable
from http import HTTPStatus

import msgspec
from yarl import URL

from embedway.core.provider_error import ProviderError
from embedway.events.event import Event, Webhook
from embedway.events.message import encode_body, sign
from embedway.http.call import HttpCall, HttpReply
from embedway.http.client import HttpClient

TIMEOUT_S = 15.0
"""How long a receiver may take to answer."""
MAX_REPLY_BYTES = 2**20
"""The largest answer to read. Only its status matters."""


class Answer(msgspec.Struct, frozen=True):
    """What became of one try."""

    delivered: bool
    text: str
    """What the receiver did, for people. Contains nothing that it wrote."""


async def send(webhook: Webhook, event: Event, *, now_ms: Callable[[], int]) -> Answer:
    """Send `event` to `webhook`. Redirects are not followed.

    Private addresses are allowed, because the administrator wrote the address.
    """
    url = URL(webhook.url, encoded=True)
    body = encode_body(webhook, event)
    headers = sign(webhook, event, body, now_s=now_ms() // 1000)
    # Events are rare, so that a kept connection would often be closed by the time of the next.
    client = HttpClient(str(url.origin()), allow_private=True, max_in_flight=1)
    try:
        async with asyncio.timeout(TIMEOUT_S):
            call = HttpCall(path=url.raw_path_qs, body=body)
            reply = await client.send(call, headers=headers, max_bytes=MAX_REPLY_BYTES)
    except TimeoutError:
        return Answer(False, f"no answer in {TIMEOUT_S:g} s")  # noqa: FBT003
    except ProviderError as error:
        return Answer(False, _describe(error))  # noqa: FBT003
    finally:
        await client.aclose()
    return Answer(reply.is_success, _describe_status(reply))


def _describe(error: ProviderError) -> str:
    cause = f" ({type(error.__cause__).__name__})" if error.__cause__ else ""
    match error.kind:
        case "unreachable":
            return f"cannot be reached{cause}"
        case "timeout":
            return f"no answer in {TIMEOUT_S:g} s"
        case _:
            return f"no valid HTTP answer: {error.reason or error.kind}{cause}"


def _describe_status(reply: HttpReply) -> str:
    status = f"answered {reply.status}"
    if reply.is_redirect:
        return f"{status}: redirects are not followed, so set url to where it leads"
    if reply.status == HTTPStatus.GONE:
        return f"{status}: nothing is there any more"
    return status
