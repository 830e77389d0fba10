"""Simulated providers: they answer OpenAI's protocol below the gateway's real adapter, and fail.

A vector is a function of the model and the text, so that the oracle knows every right one.
"""

import asyncio
import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import Any, Literal

import msgspec
import numpy as np

from chaos.simulation.process import PROCESS, Process
from chaos.simulation.world import World
from embedway.core.provider_error import ProviderError
from embedway.core.vectors import Vectors
from embedway.http.call import HttpCall, HttpReply
from embedway.http.client import FAILURES

EXACT, GUESS = "exact-embed", "guess-embed"
"""A model whose tokens the gateway counts, and one whose tokens it estimates."""
WIDTHS = {EXACT: 8, GUESS: 12}
LARGEST_CALL = 8
"""The most items that `delta` takes in a call, though it says more."""
POISON = "poison"
"""Begins a text that every provider refuses."""
PRICES_USD = {"alpha": 2.0, "beta": 5.0, "gamma": 3.0, "delta": 4.0}
"""What each provider takes for a million tokens."""

Trouble = Literal[
    "well", "refuses", "hangs", "limits", "fails", "breaks off", "widens", "miscounts", "repeats",
    "not a number", "drifts", "slow", "refuses the key", "overcounts", "says no tokens", "zeros",
    "refuses base64", "says what is left",
]  # fmt: skip

REQUEST: ContextVar[Any] = ContextVar("request", default=None)
"""The request that a call is for; None for a probe in the background."""

_BROKEN = [
    (kind, billed)
    for _, kind, billed in FAILURES
    if kind in {"unreachable", "timeout", "failed"} and billed == "maybe"
]


class _Body(msgspec.Struct):
    model: str
    input: list[str]
    encoding_format: str = "float"


def true_tokens(model: str, text: str) -> int:
    """Return how many tokens a text has."""
    return len(text) // 3 + 1 if model == EXACT else len(text) // 4 + 1


def true_vector(model: str, text: str, *, is_foreign: bool = False) -> Vectors:
    """Return the right vector of a text, or that of another model of the same width."""
    key = f"{model}{' of another kind' if is_foreign else ''}".encode()
    digest = hashlib.blake2b(text.encode(), key=key, digest_size=2 * WIDTHS[model]).digest()
    vector = np.frombuffer(digest, "<i2").astype(np.float32) + np.float32(0.5)
    # Only the first model's vectors have length one.
    return vector / np.linalg.norm(vector) if model == EXACT else vector / np.float32(2**15)


class Upstream:
    """One provider, and what is wrong with it. All replicas call the same."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.trouble: Trouble = "well"
        self.share = 1.0
        """The share of calls that meet the trouble."""
        self.drifted_models: set[str] = set()
        """The models in whose place it answers with another one, for good."""
        self.is_flaky = 0.0
        """The share of calls that meet some trouble even in good times."""
        self.chance = world.chance(f"upstream {name}")
        self.limited_until_s = 0.0

    def pick_trouble(self, model: str) -> Trouble:
        """Return what goes wrong with a call."""
        chance = self.chance
        if model in self.drifted_models:
            return "drifts"
        if self.trouble != "well" and chance.random() < self.share:
            return self.trouble
        if chance.random() < self.is_flaky:
            return chance.choice(
                ("refuses", "limits", "fails", "breaks off", "widens", "miscounts", "repeats")
            )
        return "well"


class SimulatedTransport:
    """The way from one replica to one provider. It is a `Transport` of `embedway.http.client`."""

    def __init__(self, upstream: Upstream, watch: "CallWatch") -> None:
        self._upstream = upstream
        self._watch = watch

    async def send(
        self,
        call: HttpCall,
        *,
        headers: Mapping[str, str],
        max_bytes: int,  # noqa: ARG002
    ) -> HttpReply:
        """Send a call; `Transport.send` explains the arguments."""
        upstream, body = self._upstream, msgspec.json.decode(call.body, type=_Body)
        watched = self._watch.begin(upstream, body.model, body.input, headers)
        how = "cancelled"
        try:
            reply = await self._answer(body, watched)
            how = str(reply.status)
        except ProviderError as error:
            how = error.kind
            raise
        else:
            return reply
        finally:
            self._watch.end(watched, how)

    async def aclose(self) -> None:
        """Close nothing."""

    async def _answer(self, body: _Body, watched: "WatchedCall") -> HttpReply:
        upstream, chance = self._upstream, self._upstream.chance
        trouble = watched.trouble = upstream.pick_trouble(body.model)
        if trouble != "well":
            upstream.world.fault("upstream")
        if trouble == "refuses":
            await asyncio.sleep(0.001)
            raise ProviderError("unreachable", billed="no")
        if trouble == "hangs":
            await asyncio.sleep(10_000)
        took_s = chance.lognormvariate(-3.0, 0.6) * (1 + 0.05 * len(body.input))
        await asyncio.sleep(took_s * (40 if trouble == "slow" else 1))
        if trouble == "breaks off":
            kind, billed = chance.choice(_BROKEN)
            raise ProviderError(kind, billed=billed)
        return self._refuse(body, watched) or self._embed(body, watched)

    def _refuse(self, body: _Body, watched: "WatchedCall") -> HttpReply | None:
        """Return the reply to a call that gets no vectors, or None."""
        upstream, trouble = self._upstream, watched.trouble
        reply = None
        if trouble == "refuses the key":
            reply = _error(401, "Incorrect API key provided", "invalid_api_key")
        elif upstream.world.now_s < upstream.limited_until_s or trouble == "limits":
            reply = self._limit(watched)
        elif trouble == "fails":
            reply = _error(upstream.chance.choice((500, 502, 503, 504, 529)), "It had an error")
        elif trouble == "refuses base64" and body.encoding_format == "base64":
            reply = _error(400, "Unknown argument", param="encoding_format")
        elif upstream.name == "delta" and len(body.input) > LARGEST_CALL:
            reply = _error(413, "too many items")
        elif any(text.startswith(POISON) for text in body.input):
            at = next(at for at, text in enumerate(body.input) if text.startswith(POISON))
            reply = _error(400, "This text is refused", param=f"input[{at}]")
        return reply

    def _limit(self, watched: "WatchedCall") -> HttpReply:
        upstream = self._upstream
        chance, now_s = upstream.chance, upstream.world.now_s
        upstream.world.fault("upstream")
        if chance.random() < 0.3 and now_s >= upstream.limited_until_s:
            return _error(429, "Rate limit reached")
        wait_s = max(upstream.limited_until_s - now_s, chance.choice((0.2, 1.0, 3.0, 8.0)))
        upstream.limited_until_s = now_s + wait_s
        milliseconds = int(wait_s * 1000)
        watched.retry_after_s = milliseconds / 1000
        return _error(429, "Rate limit reached", headers={"retry-after-ms": str(milliseconds)})

    def _embed(self, body: _Body, watched: "WatchedCall") -> HttpReply:
        chance, trouble = self._upstream.chance, watched.trouble
        is_foreign = trouble == "drifts"
        rows = [true_vector(body.model, text, is_foreign=is_foreign) for text in body.input]
        indices = list(range(len(rows)))
        match trouble:
            case "widens":
                rows = [np.append(row, np.float32(0.25)) for row in rows]
            case "miscounts":
                rows = rows[:-1] if chance.random() < 0.5 else [*rows, rows[0]]
                indices = list(range(len(rows)))
            case "repeats" if len(rows) > 1:
                indices[-1] = indices[0]
            case "repeats":
                indices = [7]
            case "not a number":
                rows[chance.randrange(len(rows))] = np.full_like(rows[0], np.nan)
            case "zeros":
                rows[chance.randrange(len(rows))] = np.zeros_like(rows[0])
            case _:
                pass
        entries: list[Any] = [
            {"index": at, "embedding": _encode(row, body.encoding_format)}
            for at, row in zip(indices, rows, strict=True)
        ]
        if chance.random() < 0.3:
            chance.shuffle(entries)  # the indices say which is which
        tokens = sum(true_tokens(body.model, text) for text in body.input)
        headers = {}
        if trouble == "says what is left":
            headers = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "2s"}
            watched.retry_after_s = 2.0
        reply = {
            "data": entries,
            "model": "another-embed" if is_foreign else body.model,
            "usage": {"prompt_tokens": tokens * 3 if trouble == "overcounts" else tokens},
        }
        if trouble == "says no tokens":
            del reply["usage"]
        watched.was_answered = True
        return HttpReply(status=200, headers=headers, body=msgspec.json.encode(reply))


class WatchedCall:
    """One call to a provider, as seen on the network."""

    def __init__(
        self, upstream: str, model: str, items: Sequence[str], request: Any, process: Process | None
    ) -> None:
        self.upstream = upstream
        self.model = model
        self.items = tuple(items)
        self.request = request
        self.process = process
        self.key = ""
        self.trouble: Trouble = "well"
        self.retry_after_s: float | None = None
        self.was_answered = False
        self.is_retry = False


class CallWatch:
    """Receives the beginning and the end of each call of one replica."""

    def begin(
        self, upstream: Upstream, model: str, items: Sequence[str], headers: Mapping[str, str]
    ) -> WatchedCall:
        """Note a call that begins."""
        call = WatchedCall(upstream.name, model, items, REQUEST.get(), PROCESS.get())
        call.key = headers.get("Authorization", "")
        return call

    def end(self, call: WatchedCall, how: str) -> None:
        """Note how a call ended."""


def _error(
    status: int, message: str, code: str = "", *, param: str = "", headers: Mapping[str, str] = {}
) -> HttpReply:
    error = {"message": message, "code": code or None, "param": param or None}
    body = msgspec.json.encode({"error": error})
    return HttpReply(status=status, headers=headers, body=body)


def _encode(row: Vectors, encoding_format: str) -> Any:
    if encoding_format == "base64":
        return base64.b64encode(row.astype("<f4").tobytes()).decode()
    # JSON has no such numbers; servers in Python write NaN all the same, others null.
    return [None if math.isnan(value) else value for value in row.tolist()]
