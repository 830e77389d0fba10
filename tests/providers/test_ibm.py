"""Exchanges a key for a token once for all calls, until the token expires."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from embedway.core.provider_error import ProviderError
from embedway.http.call import HttpCall
from embedway.providers.ibm import IamToken
from embedway.providers.provider_config import ProviderConfig
from embedway.providers.registry import ROWS

KEY = "very-secret-key"
CALL = HttpCall(path="/")


class Iam:
    """Stands in for IAM: waits for `open`, then answers with `status` and `body`."""

    def __init__(self) -> None:
        self.forms: list[dict[str, Any]] = []
        self.status = 200
        self.body: dict[str, Any] | None = None
        self.open = asyncio.Event()
        self.open.set()
        self.asked = asyncio.Event()

    async def answer(self, request: web.Request) -> web.Response:
        assert request.content_type == "application/x-www-form-urlencoded"
        self.forms.append(dict(await request.post()))
        self.asked.set()
        await self.open.wait()
        body = {"access_token": f"token-{len(self.forms)}", "expires_in": 3600}
        return web.json_response(body if self.body is None else self.body, status=self.status)


class Clock:
    """A clock that tests set."""

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@asynccontextmanager
async def running() -> AsyncIterator[tuple[Iam, IamToken, Clock]]:
    iam, clock = Iam(), Clock()
    app = web.Application()
    app.router.add_post("/identity/token", iam.answer)
    async with TestServer(app) as server:
        url = str(server.make_url("")).rstrip("/")
        declared = ProviderConfig(
            name="watsonx", row=ROWS["watsonx"], keys=[KEY], variables={"iam_url": url}
        )
        token = IamToken(declared, now_s=clock)
        try:
            yield iam, token, clock
        finally:
            iam.open.set()
            await token.aclose()


async def headers(token: IamToken) -> str:
    return (await token.headers(CALL, base_url="http://x"))["Authorization"]


def test_one_exchange_for_all() -> None:
    """All calls share one exchange until a minute before the token expires."""

    async def scenario() -> None:
        async with running() as (iam, token, clock):
            assert set(await asyncio.gather(*[headers(token) for _ in range(5)])) == {
                "Bearer token-1"
            }
            clock.now_s += 3600 - 61
            assert await headers(token) == "Bearer token-1"
            clock.now_s += 1
            assert await headers(token) == "Bearer token-2"
            grant = "urn:ibm:params:oauth:grant-type:apikey"
            assert iam.forms == [{"grant_type": grant, "apikey": KEY}] * 2

    asyncio.run(scenario())


def test_who_gives_up_leaves_it_to_the_others() -> None:
    """A cancelled call does not affect others that wait for the same token."""

    async def scenario() -> None:
        async with running() as (iam, token, _):
            iam.open.clear()
            first, second = (asyncio.create_task(headers(token)) for _ in range(2))
            await iam.asked.wait()
            first.cancel()
            await asyncio.wait([first])
            assert first.cancelled()
            iam.open.set()
            assert await second == "Bearer token-1"
            assert len(iam.forms) == 1

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, {"errorCode": "BXNIM0415E", "errorMessage": f"No key {KEY}"}, "credentials"),
        (401, {"errorMessage": KEY}, "credentials"),
        (429, {}, "rate_limit"),
        (500, {"errorMessage": KEY}, "failed"),
        (503, {}, "overloaded"),
        (200, {"access_token": KEY}, "malformed"),
    ],
)
def test_no_token(status: int, body: dict[str, Any], kind: str) -> None:
    """A failed exchange has a kind, never quotes the server, and is tried again later."""

    async def scenario() -> None:
        async with running() as (iam, token, _):
            iam.status, iam.body = status, body
            with pytest.raises(ProviderError) as caught:
                await headers(token)
            assert (caught.value.kind, caught.value.billed) == (kind, "no")
            assert KEY not in f"{caught.value} {caught.value.__cause__} {caught.value.__context__}"
            iam.status, iam.body = 200, None
            assert await headers(token) == "Bearer token-2"

    asyncio.run(scenario())


def test_a_refused_token_is_replaced() -> None:
    """A refused token is exchanged again, unless it is new."""

    async def scenario() -> None:
        async with running() as (_, token, clock):
            sent = await token.headers(CALL, base_url="http://x")
            refused = ProviderError("credentials")
            assert not token.report_failure(refused, sent)
            clock.now_s += 120
            assert not token.report_failure(ProviderError("overloaded"), sent)
            assert await headers(token) == "Bearer token-1"
            assert token.report_failure(refused, sent)
            assert await headers(token) == "Bearer token-2"
            assert token.report_failure(refused, sent)
            assert await headers(token) == "Bearer token-2"

    asyncio.run(scenario())


def test_no_key() -> None:
    """Without a key nothing is exchanged or sent, because a proxy may add the credentials."""

    async def scenario() -> None:
        token = IamToken(ProviderConfig(name="watsonx", row=ROWS["watsonx"]))
        assert await token.headers(CALL, base_url="http://x") == {}
        await token.aclose()

    asyncio.run(scenario())


def test_closing_ends_an_exchange() -> None:
    """Closing cancels an exchange."""

    async def scenario() -> None:
        async with running() as (iam, token, _):
            iam.open.clear()
            waiting = asyncio.create_task(headers(token))
            await iam.asked.wait()
            await token.aclose()
            await asyncio.wait([waiting])
            assert waiting.cancelled()

    asyncio.run(scenario())
