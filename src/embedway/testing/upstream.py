"""Runs the scripted upstream: a real server on a real socket."""

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
"""The answer to a call: a name in `MISBEHAVIOURS`, a `Misbehaviour`, a reply, or None for a proper
answer."""


class _Admitted(msgspec.Struct, frozen=True, kw_only=True):
    """The key, the model and the longest item that the upstream accepts; None accepts any."""

    key: str | None = None
    model: str | None = None
    max_item_tokens: int | None = None


class _Behaviour(msgspec.Struct, frozen=True, kw_only=True):
    """The settings that a proper answer depends on."""

    refused: frozenset[str]
    admitted: "_Admitted"
    most: int | None
    vectors: Vectors
    purposes: Mapping[str, Vectors]
    echo: str


class Upstream:
    """A server that plays every provider at once, on a free local port, while the context is open.

    A provider's address is `url`, `/` and a name in `SPOKEN`; without a name, the path decides
    which provider answers. A vector is a function of its item, so tests can tell vectors apart.

        with Upstream(vectors=space("bge-m3")) as good, Upstream() as bad:
            bad.vectors = other_pooling(good.vectors)

    `vectors`, `purposes` and `echo` may be set while it runs, and apply from the next call on.

    Args:
        vectors: Returns the vector of an item at the model's width. If a call asks for fewer
            dimensions, the upstream cuts and normalises it.
    """

    def __init__(self, *, vectors: Vectors = vector_of) -> None:
        self.url = ""
        self.vectors = self._first = vectors
        self.purposes: Mapping[str, Vectors] = {}
        """Other functions by the purpose of a call, in the protocol's word for it."""
        self.echo = ""
        """The model's name in answers; empty for the name in the call."""
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
        """Start the server."""
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
        """Close every connection and the port."""
        if self._loop and self._stopped:
            self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(START_S)

    # How a test scripts it.

    def script(self, *steps: Step) -> None:
        """Set the answers to the next calls, in order. Later calls get proper answers.

        Raises:
            KeyError: No misbehaviour has this name.
        """
        for step in steps:
            _known(step)
        with self._lock:
            self._script.extend(steps)

    def always(self, step: Step) -> None:
        """Set the answer to every call after the script; None for a proper answer.

        Raises:
            KeyError: No misbehaviour has this name.
        """
        _known(step)
        with self._lock:
            self._always = step

    def refuse(self, *texts: str) -> None:
        """Answer calls with one of these texts with a 400 that does not say which."""
        with self._lock:
            self._refused.update(texts)

    def admit(
        self,
        *,
        key: str | None = None,
        model: str | None = None,
        max_item_tokens: int | None = None,
    ) -> None:
        """Refuse other keys and models, and items of more tokens; None admits any."""
        with self._lock:
            self._admitted = _Admitted(key=key, model=model, max_item_tokens=max_item_tokens)

    def limit(self, most: int | None) -> None:
        """Refuse calls with more items than `most`, whatever the provider documents."""
        with self._lock:
            self._most = most

    def reset(self) -> None:
        """Forget all scripts, settings and received calls."""
        self.vectors, self.purposes, self.echo = self._first, {}, ""
        with self._lock:
            self._script.clear()
            self._calls.clear()
            self._refused.clear()
            self._admitted = _Admitted()
            self._always = self._most = None
            self._most_at_once = self._running

    def release(self) -> None:
        """Answer the calls that `holding` holds back."""
        self._hold(held=False)

    @contextlib.contextmanager
    def holding(self) -> Generator[None]:
        """Hold back all answers until the block ends or `release` is called."""
        self._hold(held=True)
        try:
            yield
        finally:
            self.release()

    # What a test reads.

    @property
    def calls(self) -> list[UpstreamCall]:
        """The received calls, in order."""
        with self._lock:
            return list(self._calls)

    @property
    def running(self) -> int:
        """The number of calls that are being answered."""
        with self._lock:
            return self._running

    @property
    def most_at_once(self) -> int:
        """The most calls that were being answered at the same time."""
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
            def ended(task: asyncio.Task[None]) -> None:
                tasks.discard(task)
                writer.close()  # here, because a task may be cancelled before it begins

            task = asyncio.create_task(self._connection(reader, writer))
            tasks.add(task)
            task.add_done_callback(ended)

        server = await asyncio.start_server(connected, HOST, 0, limit=MAX_HEAD_BYTES)
        self.url = f"http://{HOST}:{server.sockets[0].getsockname()[1]}"
        self._started.set()
        await self._stopped.wait()
        # Python 3.11 forgets to close a connection that was accepted just before the server closes.
        self._loop.remove_reader(server.sockets[0])
        await asyncio.sleep(0)
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
            pass  # the client is gone, or did not speak HTTP

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
        """Answer a call; return whether the connection may be used again."""
        with self._lock:
            step = self._script.popleft() if self._script else self._always
            behaviour = _Behaviour(
                refused=frozenset(self._refused),
                admitted=self._admitted,
                most=self._most,
                vectors=self.vectors,
                purposes=self.purposes,
                echo=self.echo,
            )
        odd = misbehaviour.find_misbehaviour(step) if step is not None else Misbehaviour()
        reply = _reply(call, odd, behaviour)
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
    """Read the next call of a connection; None if it is closed."""
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


def _reply(call: UpstreamCall, odd: Misbehaviour, behaviour: _Behaviour) -> UpstreamReply:
    """Return the provider's reply, changed by the misbehaviour."""
    target = _token(call) or _route(call)
    if isinstance(target, UpstreamReply):
        reply = target
    else:
        protocol, model = target
        try:
            request = _parsed(call, protocol, model, behaviour)
            vectors = behaviour.purposes.get(request.purpose, behaviour.vectors)
            reply = _embedded(request, protocol, odd, vectors)
        except RequestRejected as error:
            reply = _json(protocol.error(error.status, error.message, error.code), error.status)
    return odd.reply(call, reply) if odd.reply else reply


def _embedded(
    request: UpstreamRequest, protocol: Protocol, odd: Misbehaviour, vectors: Vectors
) -> UpstreamReply:
    entries = [
        ReplyEntry(index=index, embedding=embedding(item, request, vectors))
        for index, item in enumerate(request.items)
    ]
    if odd.entries and (protocol.indexed or not odd.indexed):
        entries = odd.entries(entries, request)
    tokens = odd.tokens(request.tokens) if odd.tokens else request.tokens
    headers = {
        # TEI and Bedrock's Cohere report token counts in these headers.
        "x-compute-tokens": str(tokens),
        "x-amzn-bedrock-input-token-count": str(tokens),
    }
    return _json(protocol.write(request, entries, tokens), headers=headers)


def _json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> UpstreamReply:
    named = {"content-type": "application/json", **(headers or {})}
    return UpstreamReply(status=status, body=written(value), headers=named)


def _route(call: UpstreamCall) -> tuple[Protocol, str] | UpstreamReply:
    """Return the protocol of the call and the model in its path, or a refusal."""
    name, _, rest = call.path.lstrip("/").partition("/")
    path = f"/{rest}" if name in SPOKEN else call.path
    for protocol in SPOKEN.get(name) or chain.from_iterable(SPOKEN.values()):
        if match := re.fullmatch(protocol.path, path):
            model = match.groupdict().get("model", "")
            if call.method != "POST":
                return _json(protocol.error(405, "Method Not Allowed", ""), 405)
            return protocol, model
    return _json({"detail": "Not Found"}, 404)


def _parsed(
    call: UpstreamCall, protocol: Protocol, model: str, behaviour: _Behaviour
) -> UpstreamRequest:
    """Parse and check the call.

    Raises:
        RequestRejected: The provider refuses it.
    """
    _check_key(call, protocol, behaviour.admitted.key)
    if call.headers.get("content-type", "").partition(";")[0] != "application/json":
        raise RequestRejected(415, "Unsupported Media Type")
    request = msgspec.structs.replace(protocol.read(call, model), echo=behaviour.echo)
    _check_admitted(request, protocol, behaviour.admitted)
    limit = protocol.most if behaviour.most is None else min(behaviour.most, protocol.most)
    if len(request.items) > limit:
        message = protocol.too_many.format(count=len(request.items), most=limit)
        raise RequestRejected(protocol.invalid, message)
    if any(item in behaviour.refused for item in request.items if isinstance(item, str)):
        raise RequestRejected(protocol.invalid, "'$.input' is invalid.")
    return request


def _check_admitted(request: UpstreamRequest, protocol: Protocol, admitted: _Admitted) -> None:
    if admitted.model is not None and request.model not in {"", admitted.model}:
        message = f"The model `{request.model}` does not exist."
        raise RequestRejected(404, message, code="model_not_found")
    longest, limit = max(map(count, request.items)), admitted.max_item_tokens
    if limit is not None and longest > limit:
        raise RequestRejected(
            protocol.invalid,
            f"This model's maximum context length is {limit} tokens, however you requested "
            f"{longest} tokens.",
        )


def _check_key(call: UpstreamCall, protocol: Protocol, admitted: str | None) -> None:
    if protocol.key is None:
        return
    key = call.headers.get(protocol.key, "")
    if protocol.key == "authorization":
        scheme, _, key = key.partition(" ")
        if scheme not in {"Bearer", "AWS4-HMAC-SHA256"}:
            key = ""
    elif not key:
        # Azure and Google accept their tokens too.
        scheme, _, key = call.headers.get("authorization", "").partition(" ")
    if not key:
        raise RequestRejected(401, "You didn't provide an API key.", code="invalid_api_key")
    if admitted is not None and key not in {admitted, _token_of(admitted)}:
        raise RequestRejected(401, "Incorrect API key provided.", code="invalid_api_key")


def _token(call: UpstreamCall) -> UpstreamReply | None:
    """Answer calls to the token endpoints of cloud providers; None for any other call."""
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
