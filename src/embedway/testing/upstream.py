"""The scripted upstream: a real server on a real socket. It answers well, or as it is told."""

import asyncio
import contextlib
import hashlib
import json
import re
import threading
from collections import deque
from collections.abc import Generator, Mapping
from http import HTTPStatus
from itertools import chain
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from embedway.testing import misbehaviour
from embedway.testing.misbehaviour import Misbehaviour, written
from embedway.testing.protocols import (
    SPOKEN,
    Protocol,
    ReplyEntry,
    RequestRejected,
    UpstreamCall,
    UpstreamReply,
    UpstreamRequest,
    count,
    embedding,
)
from embedway.testing.vectors import Vectors, vector_of

HOST = "127.0.0.1"
START_S = 10.0
MAX_HEAD_BYTES = 2**20

Step = str | UpstreamReply | Misbehaviour | None
"""What a call gets: a name of `MISBEHAVIOURS`, one of one's own, a reply, or a proper answer."""


class _Admitted(msgspec.Struct, frozen=True, kw_only=True):
    """The key, the model and the longest item that the upstream accepts; None accepts every one."""

    key: str | None = None
    model: str | None = None
    max_item_tokens: int | None = None


class _Told(msgspec.Struct, frozen=True, kw_only=True):
    """What a proper answer depends on, beside the call."""

    refused: frozenset[str]
    admitted: "_Admitted"
    most: int | None
    vectors: Vectors
    purposes: Mapping[str, Vectors]
    echo: str


class Upstream:
    """Every provider at once, on a free port of this machine, while the context is open.

    `url` followed by `/` and a name of `SPOKEN` is that provider; without a name, the path alone
    says who it is. A vector is a function of its item, so that a test can tell whose it is.

        with Upstream(vectors=space("bge-m3")) as good, Upstream() as bad:
            bad.vectors = other_pooling(good.vectors)

    `vectors`, `purposes` and `echo` may be set while it runs: the next call is answered by them.

    Args:
        vectors: The function; where fewer dimensions than the model's own are asked for, the
            answer is the start of what it gives, brought to length one.
    """

    def __init__(self, *, vectors: Vectors = vector_of) -> None:
        """Opens nothing yet."""
        self.url = ""
        self.vectors = self._first = vectors
        self.purposes: Mapping[str, Vectors] = {}
        """Other functions for what a call says it is for, by the protocol's word for it."""
        self.echo = ""
        """The model that answers name, where they name one; empty for the one asked for."""
        self._lock = threading.Lock()
        self._calls: list[UpstreamCall] = []
        self._script: deque[Step] = deque()
        self._always: Step = None
        self._refused: set[str] = set()
        self._admitted = _Admitted()
        self._most: int | None = None
        self._running = 0
        self._most_at_once = 0
        self._free = threading.Event()
        self._thread = threading.Thread(target=self._run, name="upstream", daemon=True)
        self._started = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._released: asyncio.Event | None = None
        self._stopped: asyncio.Event | None = None

    def __enter__(self) -> Self:
        """Starts it."""
        self._thread.start()
        if not self._started.wait(START_S):
            raise TimeoutError("the upstream did not start")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Closes every connection and the port."""
        if self._loop and self._stopped:
            self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(START_S)

    # What a test says.

    def script(self, *steps: Step) -> None:
        """What the next calls get, one after the other; after them it answers properly.

        Raises:
            KeyError: No misbehaviour has this name.
        """
        for step in steps:
            _known(step)
        with self._lock:
            self._script.extend(steps)

    def always(self, step: Step) -> None:
        """What every call gets for which no script is left; None for a proper answer.

        Raises:
            KeyError: No misbehaviour has this name.
        """
        _known(step)
        with self._lock:
            self._always = step

    def refuse(self, *texts: str) -> None:
        """Calls with one of these texts get a 400 that does not say which it is."""
        with self._lock:
            self._refused.update(texts)

    def admit(
        self,
        *,
        key: str | None = None,
        model: str | None = None,
        max_item_tokens: int | None = None,
    ) -> None:
        """Refuse other keys and models, and items of more tokens; None admits every one."""
        with self._lock:
            self._admitted = _Admitted(key=key, model=model, max_item_tokens=max_item_tokens)

    def limit(self, most: int | None) -> None:
        """Calls with more items than this are too large, whatever the provider documents."""
        with self._lock:
            self._most = most

    def reset(self) -> None:
        """Forgets what it was told since it was made, and what it received."""
        self.vectors, self.purposes, self.echo = self._first, {}, ""
        with self._lock:
            self._script.clear()
            self._calls.clear()
            self._refused.clear()
            self._admitted = _Admitted()
            self._always = self._most = None
            self._most_at_once = self._running

    def release(self) -> None:
        """Ends what `holding` began."""
        self._hold(held=False)

    @contextlib.contextmanager
    def holding(self) -> Generator[None]:
        """Answers nothing until the block ends, or until `release`."""
        self._hold(held=True)
        try:
            yield
        finally:
            self.release()

    # What a test asks.

    @property
    def calls(self) -> list[UpstreamCall]:
        """What was received, in order."""
        with self._lock:
            return list(self._calls)

    @property
    def running(self) -> int:
        """Calls that are being answered."""
        with self._lock:
            return self._running

    @property
    def most_at_once(self) -> int:
        """The most there have been of them at a time."""
        with self._lock:
            return self._most_at_once

    # The server.

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopped, self._released = asyncio.Event(), asyncio.Event()
        self._released.set()
        tasks: set[asyncio.Task[None]] = set()

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.create_task(self._connection(reader, writer))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        server = await asyncio.start_server(connected, HOST, 0, limit=MAX_HEAD_BYTES)
        self.url = f"http://{HOST}:{server.sockets[0].getsockname()[1]}"
        self._started.set()
        await self._stopped.wait()
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _hold(self, *, held: bool) -> None:
        done = threading.Event()

        def change() -> None:
            if self._released:
                (self._released.clear if held else self._released.set)()
            done.set()

        if self._loop:
            self._loop.call_soon_threadsafe(change)
            done.wait(START_S)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while call := await _received(reader):
                with self._counted(call):
                    if self._released:
                        await self._released.wait()
                    if not await self._answer(call, reader, writer):
                        break
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError):
            pass  # whoever called is gone, or spoke no HTTP
        finally:
            writer.close()

    @contextlib.contextmanager
    def _counted(self, call: UpstreamCall) -> Generator[None]:
        with self._lock:
            self._calls.append(call)
            self._running += 1
            self._most_at_once = max(self._most_at_once, self._running)
        try:
            yield
        finally:
            with self._lock:
                self._running -= 1

    async def _answer(
        self, call: UpstreamCall, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Answers; returns whether the connection may be used again."""
        with self._lock:
            step = self._script.popleft() if self._script else self._always
            told = _Told(
                refused=frozenset(self._refused),
                admitted=self._admitted,
                most=self._most,
                vectors=self.vectors,
                purposes=self.purposes,
                echo=self.echo,
            )
        odd = misbehaviour.find_misbehaviour(step) if step is not None else Misbehaviour()
        reply = _reply(call, odd, told)
        head = _head(reply)
        if odd.wire:
            await odd.wire(reader, writer, head, reply.body)
            return False
        writer.write(head + reply.body)
        await writer.drain()
        return True


def _known(step: Step) -> None:
    if step is not None:
        misbehaviour.find_misbehaviour(step)


async def _received(reader: asyncio.StreamReader) -> UpstreamCall | None:
    """The next call of a connection; None if there is none."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    line, *lines = head.decode("latin-1").strip().split("\r\n")
    method, target, _ = line.split(" ", 2)
    pairs = (each.partition(":") for each in lines)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    if headers.get("transfer-encoding", "").lower() == "chunked":
        content = await _chunks(reader)
    else:
        content = await reader.readexactly(int(headers.get("content-length", "0")))
    split = urlsplit(target)
    try:
        body = json.loads(content)
    except ValueError:
        body = None
    return UpstreamCall(
        method=method,
        path=unquote(split.path),
        query=dict(parse_qsl(split.query)),
        headers=headers,
        body=body,
        content=content,
    )


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    chunks: list[bytes] = []
    while size := int((await reader.readline()).split(b";")[0], 16):
        chunks.append(await reader.readexactly(size))
        await reader.readline()
    while (await reader.readline()).strip():
        pass
    return b"".join(chunks)


def _head(reply: UpstreamReply) -> bytes:
    known = {each.value: each.phrase for each in HTTPStatus}
    headers = {**reply.headers, "content-length": str(len(reply.body))}
    lines = [
        f"HTTP/1.1 {reply.status} {known.get(reply.status, 'Odd')}",
        *(f"{name}: {value}" for name, value in headers.items() if value),
        "\r\n",
    ]
    return "\r\n".join(lines).encode("latin-1", "replace")


def _reply(call: UpstreamCall, odd: Misbehaviour, told: _Told) -> UpstreamReply:
    """What the provider would answer, and what the misbehaviour makes of it."""
    found = _token(call) or _understood(call)
    if isinstance(found, UpstreamReply):
        reply = found
    else:
        protocol, model = found
        try:
            asked = _asked(call, protocol, model, told)
            vectors = told.purposes.get(asked.purpose, told.vectors)
            reply = _embedded(asked, protocol, odd, vectors)
        except RequestRejected as error:
            reply = _json(protocol.error(error.status, error.message, error.code), error.status)
    return odd.reply(call, reply) if odd.reply else reply


def _embedded(
    asked: UpstreamRequest, protocol: Protocol, odd: Misbehaviour, vectors: Vectors
) -> UpstreamReply:
    entries = [
        ReplyEntry(index=index, embedding=embedding(item, asked, vectors))
        for index, item in enumerate(asked.items)
    ]
    if odd.entries and (protocol.indexed or not odd.indexed):
        entries = odd.entries(entries, asked)
    tokens = odd.tokens(asked.tokens) if odd.tokens else asked.tokens
    headers = {
        # Where TEI and Bedrock's Cohere tell it.
        "x-compute-tokens": str(tokens),
        "x-amzn-bedrock-input-token-count": str(tokens),
    }
    return _json(protocol.write(asked, entries, tokens), headers=headers)


def _json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> UpstreamReply:
    named = {"content-type": "application/json", **(headers or {})}
    return UpstreamReply(status=status, body=written(value), headers=named)


def _understood(call: UpstreamCall) -> tuple[Protocol, str] | UpstreamReply:
    """Who is called, and the model in the path."""
    name, _, rest = call.path.lstrip("/").partition("/")
    path = f"/{rest}" if name in SPOKEN else call.path
    for protocol in SPOKEN.get(name) or chain.from_iterable(SPOKEN.values()):
        if match := re.fullmatch(protocol.path, path):
            model = match.groupdict().get("model", "")
            if call.method != "POST":
                return _json(protocol.error(405, "Method Not Allowed", ""), 405)
            return protocol, model
    return _json({"detail": "Not Found"}, 404)


def _asked(call: UpstreamCall, protocol: Protocol, model: str, told: _Told) -> UpstreamRequest:
    """The call, understood.

    Raises:
        RequestRejected: The provider refuses it.
    """
    _authorised(call, protocol, told.admitted.key)
    if call.headers.get("content-type", "").partition(";")[0] != "application/json":
        raise RequestRejected(415, "Unsupported Media Type")
    asked = msgspec.structs.replace(protocol.read(call, model), echo=told.echo)
    _admitted(asked, protocol, told.admitted)
    limit = protocol.most if told.most is None else min(told.most, protocol.most)
    if len(asked.items) > limit:
        message = protocol.too_many.format(count=len(asked.items), most=limit)
        raise RequestRejected(protocol.invalid, message)
    if any(item in told.refused for item in asked.items if isinstance(item, str)):
        raise RequestRejected(protocol.invalid, "'$.input' is invalid.")
    return asked


def _admitted(asked: UpstreamRequest, protocol: Protocol, admitted: _Admitted) -> None:
    if admitted.model is not None and asked.model not in {"", admitted.model}:
        message = f"The model `{asked.model}` does not exist."
        raise RequestRejected(404, message, code="model_not_found")
    longest, limit = max(map(count, asked.items)), admitted.max_item_tokens
    if limit is not None and longest > limit:
        raise RequestRejected(
            protocol.invalid,
            f"This model's maximum context length is {limit} tokens, however you requested "
            f"{longest} tokens.",
        )


def _authorised(call: UpstreamCall, protocol: Protocol, admitted: str | None) -> None:
    if protocol.key is None:
        return
    given = call.headers.get(protocol.key, "")
    if protocol.key == "authorization":
        scheme, _, given = given.partition(" ")
        if scheme not in {"Bearer", "AWS4-HMAC-SHA256"}:
            given = ""
    elif not given:
        # Azure and Google take a token of theirs, too.
        scheme, _, given = call.headers.get("authorization", "").partition(" ")
    if not given:
        raise RequestRejected(401, "You didn't provide an API key.", code="invalid_api_key")
    if admitted is not None and given not in {admitted, _token_of(admitted)}:
        raise RequestRejected(401, "Incorrect API key provided.", code="invalid_api_key")


def _token(call: UpstreamCall) -> UpstreamReply | None:
    """What the places answer that exchange one kind of credentials for another."""
    if not call.path.endswith(("/identity/token", "/token")) or call.method != "POST":
        return None
    form = dict(parse_qsl(call.content.decode("latin-1")))
    proof = form.get("apikey") or form.get("assertion") or form.get("refresh_token")
    if not proof or not form.get("grant_type"):
        return _json({"error": "invalid_request", "errorMessage": "no grant"}, 400)
    granted = {"access_token": _token_of(proof), "token_type": "Bearer", "expires_in": 3600}
    return _json(granted)


def _token_of(proof: str) -> str:
    return f"token-{hashlib.sha256(proof.encode()).hexdigest()}"
