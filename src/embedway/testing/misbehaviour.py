"""Names everything an upstream can do wrong, and a few odd things that are valid."""

import base64
import gzip
import json
import socket
import struct
import zlib
from asyncio import StreamReader, StreamWriter, sleep
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import cache, partial
from typing import Any, cast

import msgspec
import numpy as np

from embedway.testing.protocols import ReplyEntry, UpstreamCall, UpstreamReply, UpstreamRequest

DRIP_S = 0.05
MEGABYTE = 2**20
MANY = 64
"""The size of oversized bodies, in megabytes."""

Entries = list[ReplyEntry]


class Misbehaviour(msgspec.Struct, frozen=True, kw_only=True):
    """A change to the proper answer of a call; exactly one of the functions is set."""

    entries: Callable[[Entries, UpstreamRequest], Entries] | None = None
    """Changes the vectors; the rest of the answer stays proper."""
    tokens: Callable[[int], Any] | None = None
    """Changes the token count."""
    reply: Callable[[UpstreamCall, UpstreamReply], UpstreamReply] | None = None
    """Changes the whole, proper reply."""
    wire: Callable[[StreamReader, StreamWriter, bytes, bytes], Awaitable[None]] | None = None
    """Writes to the connection itself, given head and body of the proper reply, and closes it."""
    indexed: bool = False
    """Whether it applies only to protocols that number vectors."""


# Vectors. Where one changed vector is enough, it is the second, if there is one.


def _second(
    change: Callable[[Any, UpstreamRequest], Any], entries: Entries, request: UpstreamRequest
) -> Entries:
    at = min(1, len(entries) - 1)
    changed = msgspec.structs.replace(entries[at], embedding=change(entries[at].embedding, request))
    return [*entries[:at], changed, *entries[at + 1 :]]


def _all(
    change: Callable[[Any, UpstreamRequest], Any], entries: Entries, request: UpstreamRequest
) -> Entries:
    return [
        msgspec.structs.replace(each, embedding=change(each.embedding, request)) for each in entries
    ]


def _numbers(value: Any) -> list[float]:
    """Return a vector as numbers, however it was encoded."""
    if isinstance(value, str):
        return [float(each) for each in np.frombuffer(base64.b64decode(value), "<f4")]
    return list(value)


def _as(name: str, change: Callable[[list[Any]], Any], *, all: bool = False) -> dict[str, Any]:
    """Make a misbehaviour that changes a vector's numbers."""
    apply = partial(_all if all else _second, lambda value, _: change(_numbers(value)))
    return {name: Misbehaviour(entries=apply)}


def _bytes(name: str, change: Callable[[bytes], Any], *, all: bool = False) -> dict[str, Any]:
    """Make a misbehaviour that changes a vector's bytes, which are then encoded in base64."""

    def changed(value: Any, _: UpstreamRequest) -> Any:
        made = change(np.array(_numbers(value), "<f4").tobytes())
        return base64.b64encode(made).decode() if isinstance(made, bytes) else made

    return {name: Misbehaviour(entries=partial(_all if all else _second, changed))}


def _indices(name: str, change: Callable[[list[int]], list[Any]]) -> dict[str, Misbehaviour]:
    """Make a misbehaviour that changes the vectors' indices 0, 1, 2, ..."""

    def changed(entries: Entries, _: UpstreamRequest) -> Entries:
        indices = change(list(range(len(entries))))
        return [
            msgspec.structs.replace(each, index=index)
            for each, index in zip(entries, indices, strict=True)
        ]

    return {name: Misbehaviour(entries=changed, indexed=True)}


def _wide(content: bytes) -> bytes:
    return np.frombuffer(content, "<f4").astype("<f8").tobytes()


def raw(literal: str) -> str:
    """Mark text that `written` puts into JSON without quotes."""
    return f"@raw@{literal}@"


_VECTORS: dict[str, Misbehaviour] = {
    "too few vectors": Misbehaviour(entries=lambda entries, _: entries[:-1]),
    "too many vectors": Misbehaviour(
        entries=lambda entries, _: [
            *entries,
            msgspec.structs.replace(entries[-1], index=len(entries)),
        ]
    ),
    "no vectors": Misbehaviour(entries=lambda _, __: []),
    "shuffled indices": Misbehaviour(entries=lambda entries, _: entries[::-1], indexed=True),
    **_indices("no indices", lambda indices: [None] * len(indices)),
    **_indices("duplicate index", lambda indices: [0, *indices[:-1]]),
    **_indices("missing index", lambda indices: [*indices[:-1], None]),
    **_indices("index 0 left out", lambda indices: [None, *indices[1:]]),
    **_indices("two missing indices", lambda indices: [None, *indices[1:-1], None]),
    **_indices("null index", lambda indices: [*indices[:-1], raw("null")]),
    **_indices("negative index", lambda indices: [-1, *indices[1:]]),
    **_indices("index out of range", lambda indices: [*indices[:-1], len(indices)]),
    **_indices("indices from one", lambda indices: [index + 1 for index in indices]),
    **_indices("float index", lambda indices: [*indices[:-1], indices[-1] + 0.5]),
    **_indices("string index", lambda indices: list(map(str, indices))),
    **_indices("boolean index", lambda indices: [False, True, *indices[2:]]),
    **_indices("enormous index", lambda indices: [*indices[:-1], raw("9" * 5000)]),
    **_as("short vectors", lambda vector: vector[:-1], all=True),
    **_as("long vectors", lambda vector: [*vector, 0.5], all=True),
    **_as("one vector shorter", lambda vector: vector[:-1]),
    **_as("one vector longer", lambda vector: [*vector, 0.5]),
    **_as("one empty vector", lambda _: []),
    **_as("empty vectors", lambda _: [], all=True),
    **_as("one number", lambda vector: vector[0]),
    **_as("NaN", lambda vector: [raw("NaN"), *vector[1:]]),
    **_as("Infinity", lambda vector: [*vector[:-1], raw("Infinity")]),
    **_as("-Infinity", lambda vector: [*vector[:-1], raw("-Infinity")]),
    **_as("1e999", lambda vector: [raw("1e999"), *vector[1:]]),
    **_as("1e39", lambda vector: [1e39, *vector[1:]]),
    **_as("number of 5000 digits", lambda vector: [raw("9" * 5000), *vector[1:]]),
    **_as("zeros", lambda vector: [0.0] * len(vector)),
    **_as("all zeros", lambda vector: [0] * len(vector), all=True),
    **_as("vanishing numbers", lambda vector: [1e-60] * len(vector)),
    **_as("null number", lambda vector: [None, *vector[1:]]),
    **_as("numbers as strings", lambda vector: list(map(str, vector))),
    **_as("booleans", lambda vector: [True] * len(vector)),
    **_as("nested vectors", lambda vector: [vector]),
    **_as("vectors of tokens", lambda vector: [vector, vector], all=True),
    **_as("null embedding", lambda _: raw("null")),
    **_as("no embedding", lambda _: None),
    **_as("embedding as object", lambda vector: {"values": vector}),
    **_as("floats", lambda vector: vector, all=True),
    **_bytes("base64 of odd length", lambda raw_: base64.b64encode(raw_).decode()[:-1]),
    **_bytes("base64 with a newline", lambda raw_: base64.encodebytes(raw_).decode()),
    **_bytes("base64 of part of a number", lambda raw_: raw_[:-1]),
    **_bytes("base64 of NaN", lambda raw_: b"\x00\x00\xc0\x7f" + raw_[4:]),
    **_bytes("base64 of infinity", lambda raw_: b"\x00\x00\x80\x7f" + raw_[4:]),
    **_bytes("base64 of zeros", lambda raw_: bytes(len(raw_))),
    **_bytes("base64 of float64", _wide, all=True),
    **_bytes("base64 of nothing", lambda _: b""),
    **_bytes("base64 with dashes", lambda raw_: "-_" + base64.b64encode(raw_).decode()[2:]),
    **_bytes("not base64", lambda _: "no vector at all"),
}


_COUNTS: dict[str, Misbehaviour] = {
    "no usage": Misbehaviour(reply=lambda _, reply: _fields(reply, usage=None)),
    "null usage": Misbehaviour(reply=lambda _, reply: _fields(reply, usage=raw("null"))),
    "usage negative": Misbehaviour(tokens=lambda _: -5),
    "usage zero": Misbehaviour(tokens=lambda _: 0),
    "usage absurd": Misbehaviour(tokens=lambda _: 10**15),
    "usage enormous": Misbehaviour(tokens=lambda _: raw("9" * 5000)),
    "usage as string": Misbehaviour(tokens=str),
    "usage with a point": Misbehaviour(tokens=float),
    "usage NaN": Misbehaviour(tokens=lambda _: raw("NaN")),
    "usage fractional": Misbehaviour(tokens=lambda tokens: tokens + 0.5),
    "usage as list": Misbehaviour(reply=lambda _, reply: _fields(reply, usage=[1])),
    "usage as empty list": Misbehaviour(reply=lambda _, reply: _fields(reply, usage=[])),
    "usage as number": Misbehaviour(reply=lambda _, reply: _fields(reply, usage=5)),
}


# Replies.


def _fields(reply: UpstreamReply, **fields: Any) -> UpstreamReply:
    """Replace fields of an answer; drop those that are None."""
    body = json.loads(reply.body)
    if isinstance(body, dict):
        merged = {**cast("dict[str, Any]", body), **fields}
        body = {name: each for name, each in merged.items() if each is not None}
    return msgspec.structs.replace(reply, body=written(body))


def written(value: Any) -> bytes:
    """Encode JSON as a careless server would."""
    text = json.dumps(value)
    pieces = text.split('"@raw@')
    return "".join([pieces[0], *(piece.replace('@"', "", 1) for piece in pieces[1:])]).encode()


def _body(change: Callable[[bytes], bytes]) -> Misbehaviour:
    return Misbehaviour(
        reply=lambda _, reply: msgspec.structs.replace(reply, body=change(reply.body))
    )


def _json(value: Any, status: int = 200, **headers: str) -> Misbehaviour:
    return _answer(status, written(value), {"content-type": "application/json", **headers})


def _answer(
    status: int, body: bytes = b"", headers: Mapping[str, str] | None = None
) -> Misbehaviour:
    return Misbehaviour(
        reply=lambda _, __: UpstreamReply(status=status, body=body, headers=headers or {})
    )


def _headed(status: int | None = None, **headers: str) -> Misbehaviour:
    """Make a misbehaviour that sends the proper body with other headers."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Misbehaviour(
        reply=lambda _, reply: UpstreamReply(
            status=status or reply.status, body=reply.body, headers={**reply.headers, **named}
        )
    )


def _said(message: str, kind: str = "invalid_request_error", code: str | None = None) -> Any:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def secrets_in(headers: Mapping[str, str]) -> list[str]:
    """Return the keys in the headers of a call, as sent and in other encodings."""
    names = ("authorization", "api-key", "x-goog-api-key")
    keys = [headers[name].split()[-1] for name in names if headers.get(name)]
    return [
        form
        for key in keys
        for form in (
            key,
            key[::-1],
            base64.b64encode(key.encode()).decode(),
            base64.urlsafe_b64encode(key.encode()).decode().rstrip("="),
            key.encode().hex(),
        )
    ]


def _echo(status: int, write: Callable[[UpstreamCall], Any], **headers: str) -> Misbehaviour:
    """Make a refusal that repeats a part of the call."""

    def reply(call: UpstreamCall, _: UpstreamReply) -> UpstreamReply:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        shown = {name: value.format(key=_key(call)) for name, value in named.items()}
        return UpstreamReply(status=status, body=written(write(call)), headers=shown)

    return Misbehaviour(reply=reply)


def _key(call: UpstreamCall) -> str:
    return next(iter(secrets_in(call.headers)), "no key")


def _limited(message: str = "Rate limit reached", **headers: str) -> Misbehaviour:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return _json(_said(message, "requests", "rate_limit_exceeded"), 429, **named)


def _until(wait_s: float) -> Misbehaviour:
    """Make a rate limit whose `Retry-After` is a date."""

    def reply(_: UpstreamCall, __: UpstreamReply) -> UpstreamReply:
        date = format_datetime(datetime.now(UTC) + timedelta(seconds=wait_s), usegmt=True)
        return UpstreamReply(
            status=429, body=written(_said("Slow down")), headers={"retry-after": date}
        )

    return Misbehaviour(reply=reply)


_NO_CALENDAR = "Sat, 01 Jan 100000000000 00:00:00 GMT"


def _deep(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


_BODIES: dict[str, Misbehaviour] = {
    "data missing": _json({"object": "list", "model": "x", "usage": {"total_tokens": 1}}),
    "data null": _json({"object": "list", "data": None, "embeddings": None}),
    "data as object": _json({"data": {"0": [0.5]}, "embeddings": {"0": [0.5]}}),
    "data of strings": _json({"data": ["a"], "embeddings": ["a"]}),
    "empty object": _json({}),
    "empty list": _json([]),
    "bare string": _json("vectors"),
    "bare number": _json(7),
    "null": _json(None),
    "empty body": _answer(200),
    "one space": _answer(200, b" "),
    "not JSON": _answer(200, b"vectors = [0.1, 0.2]"),
    "HTML with 200": _answer(
        200, b"<!doctype html><title>Sign in</title>", {"content-type": "text/html"}
    ),
    "truncated JSON": _body(lambda body: body[: len(body) // 2]),
    "JSON and more": _body(lambda body: body + b'{"error":"late"}'),
    "JSON twice": _body(lambda body: body + body),
    "single quotes": _body(lambda body: body.replace(b'"', b"'")),
    "BOM": _body(lambda body: b"\xef\xbb\xbf" + body),
    "UTF-16": _body(lambda body: body.decode().encode("utf-16")),
    "invalid UTF-8": _body(lambda body: body[:-1] + b',"x":"\xff\xfe"}'),
    "invalid UTF-8 in an error": _answer(400, b'{"error":{"message":"\xff\xfe\xc3"}}'),
    "null bytes": _body(lambda body: body + bytes(4)),
    "very deep JSON": _answer(200, _deep(200_000)),
    "deep JSON in a field": _answer(200, b'{"data":' + _deep(100_000) + b"}"),
    "deep JSON as an error": _answer(400, b'{"error":' + _deep(100_000) + b"}"),
    "enormous code": _answer(400, b'{"error":{"message":"no","code":' + b"9" * 5000 + b"}}"),
    "surrogates in an error": _answer(400, b'{"error":{"message":"\\ud800 \\udfff no"}}'),
    "OpenAI's error with 200": _json(_said("The server had an error", "server_error")),
    "rate limit with 200": _json(_said("Rate limit reached", "requests", "rate_limit_exceeded")),
    "flat error with 200": _json({"message": "something went wrong", "code": 500}),
    "error string with 200": _json({"error": "model runner has stopped"}),
    "unknown fields": Misbehaviour(
        reply=lambda _, reply: _fields(reply, surprise={"a": [1]}, error=raw("null"))
    ),
    "white space": _body(lambda body: b" \r\n\t" + body + b"\n" * 100),
    "content type text/plain": _headed(content_type="text/plain; charset=latin-1"),
    "no content type": _headed(content_type=""),
    "201": _headed(201),
    "204": Misbehaviour(
        wire=lambda reader, writer, _, __: _write(
            reader, writer, b"HTTP/1.1 204 No Content\r\n\r\n"
        )
    ),
    "206": _headed(206),
    "reset of no calendar": _headed(
        x_ratelimit_remaining_requests="0", x_ratelimit_reset_requests=_NO_CALENDAR
    ),
}

_REFUSALS: dict[str, Misbehaviour] = {
    "400": _json(_said("'$.input' is invalid."), 400),
    "400 bare string": _json("input is bad", 400),
    "400 plain text": _answer(400, b"Bad Request"),
    "400 empty": _answer(400),
    "400 HTML": _answer(400, b"<html><h1>400 Bad Request</h1></html>"),
    "400 list": _json([{"error": {"message": "bad", "code": 400}}], 400),
    "400 null error": _json({"error": None}, 400),
    "400 of dimensions": _json(_said("This model does not support specifying dimensions."), 400),
    "400 too long": _json(
        _said("This model's maximum context length is 8192 tokens, however you requested 8610."),
        400,
    ),
    "400 too many tokens": _json(
        _said("Requested 453357 tokens, max 300000 tokens per request", "max_tokens_per_request"),
        400,
    ),
    "400 of a megabyte": _echo(400, lambda _: _said("no " * 350_000)),
    "422 detail list": _json({"detail": [{"loc": ["body"], "msg": "bad", "type": "t"}]}, 422),
    "422 string code": _json({"message": "bad", "code": "20012"}, 422),
    "401": _json(_said("Incorrect API key provided", code="invalid_api_key"), 401),
    "401 empty": _answer(401),
    "401 that repeats the key": _echo(
        401, lambda call: _said(f"Incorrect API key provided: {_key(call)}.", code="x")
    ),
    "400 that repeats the key": _echo(400, lambda call: _said(f"What is {_key(call)}?")),
    "400 that repeats the key in every form": _echo(
        400, lambda call: _said("What is " + ", ".join(secrets_in(call.headers)))
    ),
    "400 that repeats the key in pieces": _echo(
        400, lambda call: {"errors": [{"message": _key(call), "code": _key(call)}]}
    ),
    "400 that repeats the key at its end": _echo(
        400, lambda call: _said(f"{'word ' * 45}{_key(call)}")
    ),
    "400 that repeats the key far behind": _echo(
        400, lambda call: _said(f"no{' ' * 940}{_key(call)}")
    ),
    "400 that repeats the head": _echo(400, lambda call: _said(f"Got {dict(call.headers)}")),
    "400 that repeats the key in a header": _echo(
        400, lambda _: _said("no"), x_key="{key}", retry_after="{key}", www_authenticate="{key}"
    ),
    "422 that repeats the body": _echo(422, lambda call: {"detail": [{"msg": str(call.body)}]}),
    "500 that repeats the key": _echo(500, lambda call: _said(f"Traceback: {_key(call)}")),
    "200 that repeats the key": _echo(200, lambda call: _said(f"What is {_key(call)}?")),
    "402": _json({"message": "please add a payment method"}, 402),
    "403": _json({"detail": "Forbidden"}, 403),
    "404": _json(_said("The model `x` does not exist", code="model_not_found"), 404),
    "404 HTML": _answer(404, b"<html>nginx</html>", {"content-type": "text/html"}),
    "405": _answer(405, b"Method Not Allowed"),
    "408": _answer(408),
    "409": _json({"detail": "busy", "code": "CONFLICT_RESOURCE_BUSY"}, 409),
    "413": _answer(413, b"Payload Too Large"),
    "418": _answer(418, b"I'm a teapot"),
    "424": _json({"error": "backend", "error_type": "Backend"}, 424),
    "insufficient quota": _json(
        _said("You exceeded your current quota", "insufficient_quota", "insufficient_quota"), 429
    ),
    "429": _limited(),
    "429 empty": _answer(429),
    "429 of seconds": _limited(retry_after="20"),
    "429 of a fraction": _limited(retry_after="20.5"),
    "429 of a date": _until(30),
    "429 of a past date": _until(-3600),
    "429 of milliseconds": _limited(retry_after_ms="20000"),
    "429 of a reset": _limited(
        x_ratelimit_remaining_requests="0", x_ratelimit_reset_requests="6m0s"
    ),
    "429 of a reset in seconds": _limited(
        x_ratelimit_remaining_tokens="0", x_ratelimit_reset_tokens="20"
    ),
    "429 in words": _limited("Limit 3, Used 3, Requested 1. Please try again in 20s."),
    "429 absurd": _limited(retry_after="99999999"),
    "429 of ages": _limited(retry_after="9" * 400),
    "429 negative": _limited(retry_after="-20"),
    "429 garbage": _limited(retry_after="soon, \x01 I promise", retry_after_ms="NaN"),
    "429 not a number": _limited(retry_after="nan", x_ratelimit_reset_requests="inf"),
    "429 of no calendar": _limited(retry_after=_NO_CALENDAR),
    "429 of an impossible date": _limited(retry_after="Fri, 99 Foo 0000 99:99:99 GMT"),
    "500": _json(_said("The server had an error", "server_error"), 500),
    "501": _answer(501),
    "502 HTML": _answer(502, b"<html>502 Bad Gateway</html>", {"content-type": "text/html"}),
    "503": _json(_said("overloaded", "service_unavailable_error", "server_is_overloaded"), 503),
    "503 with Retry-After": _answer(503, b"", {"retry-after": "20"}),
    "504": _answer(504),
    "529": _answer(529),
    "599": _answer(599),
}


# The wire.


async def _write(reader: StreamReader, writer: StreamWriter, content: bytes) -> None:  # noqa: ARG001
    writer.write(content)
    await writer.drain()


async def _gone(reader: StreamReader) -> None:
    """Wait until the other end has closed."""
    while await reader.read(65536):
        pass


def _reset(writer: StreamWriter) -> None:
    """Close with RST."""
    connection: socket.socket = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def _cut(at: Callable[[int, int], int], *, reset: bool = False) -> Misbehaviour:
    """Make a reply that ends after `at` bytes of head and body."""

    async def wire(reader: StreamReader, writer: StreamWriter, head: bytes, body: bytes) -> None:
        await _write(reader, writer, (head + body)[: at(len(head), len(body))])
        if reset:
            _reset(writer)

    return Misbehaviour(wire=wire)


def _stall(at: Callable[[int, int], int]) -> Misbehaviour:
    """Make a reply that stalls after `at` bytes of head and body."""

    async def wire(reader: StreamReader, writer: StreamWriter, head: bytes, body: bytes) -> None:
        await _write(reader, writer, (head + body)[: at(len(head), len(body))])
        await _gone(reader)

    return Misbehaviour(wire=wire)


def _verbatim(write: Callable[[bytes, bytes], bytes]) -> Misbehaviour:
    """Make a reply of bytes computed from head and body."""
    return Misbehaviour(
        wire=lambda reader, writer, head, body: _write(reader, writer, write(head, body))
    )


def _without_end(start: bytes, piece: Callable[[], bytes], pause_s: float = 0) -> Misbehaviour:
    """Make a reply that goes on until the other end closes."""

    async def wire(reader: StreamReader, writer: StreamWriter, _: bytes, __: bytes) -> None:
        await _write(reader, writer, start)
        while not reader.at_eof():
            await _write(reader, writer, piece())
            await sleep(pause_s)

    return Misbehaviour(wire=wire)


def _length(head: bytes, change: Callable[[int], object]) -> bytes:
    name = b"content-length: "
    before, _, after = head.partition(name)
    length, _, rest = after.partition(b"\r\n")
    return before + name + str(change(int(length))).encode() + b"\r\n" + rest


def _chunked(head: bytes, body: bytes, *, size: int = 7, end: bytes = b"0\r\n\r\n") -> bytes:
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    lines = [line for line in head.split(b"\r\n")[:-2] if not line.startswith(b"content-length")]
    head = b"\r\n".join([*lines, b"transfer-encoding: chunked", b"", b""])
    return head + b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + end


@cache
def _bomb() -> bytes:
    pack = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    return b"".join([*(pack.compress(b" " * MEGABYTE) for _ in range(MANY)), pack.flush()])


def _encoded(name: str, change: Callable[[bytes], bytes]) -> Misbehaviour:
    return Misbehaviour(
        reply=lambda _, reply: UpstreamReply(
            body=change(reply.body), headers={**reply.headers, "content-encoding": name}
        )
    )


def _redirect(status: int, place: str) -> Misbehaviour:
    return Misbehaviour(
        reply=lambda call, _: UpstreamReply(
            status=status, headers={"location": place.format(path=call.path)}
        )
    )


_OK = b"HTTP/1.1 200 OK\r\n"
_PLAIN = _OK + b"content-type: application/json\r\n"

_WIRE: dict[str, Misbehaviour] = {
    "content-length too long": _verbatim(lambda head, body: _length(head, lambda n: n + 9) + body),
    "content-length too short": _verbatim(lambda head, body: _length(head, lambda n: n - 9) + body),
    "content-length negative": _verbatim(lambda head, body: _length(head, lambda n: -n) + body),
    "content-length no number": _verbatim(lambda head, body: _length(head, lambda _: "x") + body),
    "two content-lengths": _verbatim(
        lambda head, body: _length(head, lambda n: f"{n}\r\ncontent-length: {n + 1}") + body
    ),
    "no content-length": _verbatim(lambda _, body: _PLAIN + b"\r\n" + body),
    "chunked": _verbatim(_chunked),
    "chunked and cut": _verbatim(partial(_chunked, end=b"")),
    "chunked and broken": _verbatim(partial(_chunked, end=b"xyz\r\n")),
    "reset before the head": _cut(lambda _, __: 0, reset=True),
    "reset in the status line": _cut(lambda _, __: 5, reset=True),
    "reset in the head": _cut(lambda head, _: head - 3, reset=True),
    "reset after the head": _cut(lambda head, _: head, reset=True),
    "reset in the body": _cut(lambda head, body: head + body // 2, reset=True),
    "reset before the last byte": _cut(lambda head, body: head + body - 1, reset=True),
    "close before the head": _cut(lambda _, __: 0),
    "close in the head": _cut(lambda head, _: head - 3),
    "close after the head": _cut(lambda head, _: head),
    "close in the body": _cut(lambda head, body: head + body // 2),
    "never answers": _stall(lambda _, __: 0),
    "stalls in the head": _stall(lambda head, _: head - 3),
    "stalls after the head": _stall(lambda head, _: head),
    "stalls in the body": _stall(lambda head, body: head + body // 2),
    "slow drip": _without_end(
        _PLAIN + b"content-length: 100000\r\n\r\n", lambda: b" ", pause_s=DRIP_S
    ),
    "1xx forever": _without_end(b"", lambda: b"HTTP/1.1 102 Processing\r\n\r\n", pause_s=DRIP_S),
    "1xx first": _verbatim(
        lambda head, body: b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" + head + body
    ),
    "endless head": _without_end(_OK, lambda: b"x-more: of the same\r\n" * 1000),
    "endless header": _without_end(_OK + b"x-more: ", lambda: b"of the same " * 1000),
    "endless body": _without_end(_PLAIN + b"\r\n", lambda: b" " * MEGABYTE),
    "endless refusal": _without_end(b"HTTP/1.1 400 Bad Request\r\n\r\n", lambda: b" " * MEGABYTE),
    "64 MB of spaces": _body(lambda _: b" " * MANY * MEGABYTE),
    "gzip": _encoded("gzip", gzip.compress),
    "deflate": _encoded("deflate", zlib.compress),
    "gzip bomb": _encoded("gzip", lambda _: _bomb()),
    "broken gzip": _encoded("gzip", lambda body: gzip.compress(body)[:-9]),
    "claims gzip": _encoded("gzip", lambda body: body),
    "claims br": _encoded("br", lambda body: body),
    "gzip twice": _encoded("gzip, gzip", lambda body: gzip.compress(gzip.compress(body))),
    "301": _redirect(301, "{path}"),
    "302 to the cloud's own": _redirect(302, "http://169.254.169.254/latest/meta-data/"),
    "304": Misbehaviour(
        wire=lambda reader, writer, _, __: _write(
            reader, writer, b"HTTP/1.1 304 Not Modified\r\n\r\n"
        )
    ),
    "redirect to itself": _redirect(307, "{path}"),
    "redirect elsewhere": _redirect(308, "http://127.0.0.1:1/"),
    "HTTP/0.9": _verbatim(lambda _, body: body),
    "no HTTP": _verbatim(lambda _, __: b"SSH-2.0-OpenSSH_9.6\r\n"),
    "TLS alert": _verbatim(lambda _, __: b"\x15\x03\x01\x00\x02\x02\x16"),
    "HTTP/1.0": _verbatim(lambda _, body: b"HTTP/1.0 200 OK\r\n\r\n" + body),
    "HTTP/2": _verbatim(lambda head, body: head.replace(b"HTTP/1.1", b"HTTP/2") + body),
    "status without a number": _verbatim(lambda _, body: b"HTTP/1.1 OK\r\n\r\n" + body),
    "status 999": _verbatim(lambda head, body: head.replace(b"200 OK", b"999 Much") + body),
    "status 0": _verbatim(lambda head, body: head.replace(b"200 OK", b"000 None") + body),
    "switches protocols": _verbatim(
        lambda _, __: b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n"
    ),
    "header without a colon": _verbatim(
        lambda head, body: head.replace(b"200 OK\r\n", b"200 OK\r\nnonsense\r\n") + body
    ),
    "answers twice": _verbatim(lambda head, body: (head + body) * 2),
    "sets a cookie": _headed(set_cookie="session=1; Path=/"),
}

MISBEHAVIOURS: Mapping[str, Misbehaviour] = {
    **_VECTORS,
    **_COUNTS,
    **_BODIES,
    **_REFUSALS,
    **_WIRE,
}
"""All misbehaviours by name."""


def find_misbehaviour(step: "str | UpstreamReply | Misbehaviour") -> Misbehaviour:
    """Return the misbehaviour that a step of a script stands for.

    Raises:
        KeyError: No misbehaviour has this name.
    """
    if isinstance(step, str):
        return MISBEHAVIOURS[step]
    if isinstance(step, UpstreamReply):
        return Misbehaviour(reply=lambda _, __: step)
    return step
