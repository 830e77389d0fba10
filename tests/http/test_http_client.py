"""The HTTP client's address checks, its failures, and how replies are read."""

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedway.core.provider_error import MESSAGES, ProviderError
from embedway.http import addresses, connection, pool
from embedway.http.addresses import PrivateAddressError, require_public
from embedway.http.call import HttpCall, HttpReply
from embedway.http.client import FAILURES, HttpClient
from embedway.providers import failures, waits

PRIVATE = [
    "127.0.0.1", "127.9.9.9", "0.0.0.0", "10.0.0.1", "172.16.0.1", "172.31.255.255",
    "192.168.1.1", "169.254.169.254", "169.254.170.2", "100.64.0.1", "100.100.100.200",
    "192.0.0.192", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255",
    "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1",
    "::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:7f00:1::",
    "2002:a9fe:a9fe::1",
]  # fmt: skip
PUBLIC = ["1.1.1.1", "104.18.7.192", "2606:4700::6812:7c0", "::ffff:1.1.1.1", "64:ff9b::101:101"]


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses(address: str) -> None:
    """Addresses of private networks, cloud metadata and reserved ranges are refused."""
    with pytest.raises(PrivateAddressError, match="not a public address"):
        require_public(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses(address: str) -> None:
    """Public addresses are accepted, also in IPv6 forms."""
    require_public(address)


def send(base_url: str, *, allow_private: bool) -> HttpReply:
    async def sent() -> HttpReply:
        http = HttpClient(base_url, allow_private=allow_private, max_in_flight=1)
        try:
            return await http.send(HttpCall(path="/x", body=b"{}"), headers={}, max_bytes=100)
        finally:
            await http.aclose()

    return asyncio.run(sent())


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0177.0.0.1", "127.1"])
def test_private_hosts_are_not_called(host: str) -> None:
    """No spelling of a private address leads to a connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.05)
        with pytest.raises(ProviderError) as failed:
            send(f"http://{host}:{listener.getsockname()[1]}", allow_private=False)
        assert (failed.value.kind, failed.value.billed) == ("unreachable", "not sent")
        with pytest.raises(TimeoutError):
            listener.accept()


def answering(reply: bytes) -> Callable[[socket.socket], None]:
    def answer(listener: socket.socket) -> None:
        with listener.accept()[0] as connection:
            connection.recv(65536)
            connection.sendall(reply)

    return answer


def test_declared_hosts_are_called() -> None:
    """Declared hosts may be private, and their replies are returned unchanged."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        head = b"HTTP/1.1 418 no\r\nX-A: b\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi"
        thread = threading.Thread(target=answering(head), args=(listener,))
        thread.start()
        reply = send(f"http://127.0.0.1:{listener.getsockname()[1]}", allow_private=True)
        thread.join()
    assert (reply.status, reply.headers["x-a"], reply.body) == (418, "b", b"hi")


def endless(start: bytes, again: bytes) -> Callable[[socket.socket], None]:
    """Answer with `start`, and with `again` for as long as the client reads."""

    def answer(listener: socket.socket) -> None:
        with listener.accept()[0] as connection, suppress(OSError):
            connection.recv(65536)
            connection.sendall(start)
            while True:
                connection.sendall(again)

    return answer


ENDLESS = {
    "headers": (b"HTTP/1.1 200 OK\r\n", b"x: y\r\n" * 1000),
    "a header": (b"HTTP/1.1 200 OK\r\nx: ", b"y" * 1000),
    "hints": (b"", b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" * 100),
    "a chunk's extension": (
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;x=", b"y" * 1000,
    ),
    "trailers": (
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n",
        b"x: y\r\n" * 1000,
    ),
    "a body": (b"HTTP/1.1 200 OK\r\n\r\n", b"y" * 1000),
}  # fmt: skip


@pytest.mark.parametrize("what", ENDLESS)
def test_endless_replies(what: str) -> None:
    """A reply that never ends is given up, whatever it repeats."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=endless(*ENDLESS[what]), args=(listener,))
        thread.start()
        with pytest.raises(ProviderError) as failed:
            send(f"http://127.0.0.1:{listener.getsockname()[1]}", allow_private=True)
        thread.join()
    assert failed.value.kind == "malformed"


@pytest.mark.parametrize(
    ("path", "headers"),
    [("/a b", {}), ("/a\r\nx: y", {}), ("/x", {"x": "a\r\ny: z"}), ("/x", {"x\n": "a"})],
)
def test_calls_that_would_break_their_lines(path: str, headers: dict[str, str]) -> None:
    """A path or a header that would become another line is not sent."""

    async def sent(port: int) -> None:
        http = HttpClient(f"http://127.0.0.1:{port}", allow_private=True, max_in_flight=1)
        try:
            await http.send(HttpCall(path=path), headers=headers, max_bytes=100)
        finally:
            await http.aclose()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.05)
        with pytest.raises(ProviderError) as failed:
            asyncio.run(sent(listener.getsockname()[1]))
        with pytest.raises(TimeoutError):
            listener.accept()
    assert (failed.value.kind, failed.value.billed) == ("unreachable", "not sent")


def test_what_follows_a_reply_does_not_change_it() -> None:
    """A second reply in the same piece changes neither the status nor the headers of the first."""
    first = b"HTTP/1.1 429 no\r\nretry-after: 7\r\ncontent-length: 2\r\n\r\nhi"
    second = b"HTTP/1.1 200 OK\r\nx: y\r\ncontent-length: 2\r\n\r\nho"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answering(first + second), args=(listener,))
        thread.start()
        reply = send(f"http://127.0.0.1:{listener.getsockname()[1]}", allow_private=True)
        thread.join()
    assert (reply.status, reply.headers.get("retry-after"), reply.body) == (429, "7", b"hi")


def count_connections(answers: Sequence[Callable[[socket.socket], None]], scheme: str) -> int:
    """Send one GET to a server with these answers; return how many connections it accepted."""
    connections = 0

    async def get(base_url: str) -> None:
        http = HttpClient(base_url, allow_private=True, max_in_flight=1)
        try:
            with pytest.raises(ProviderError):
                await http.send(HttpCall(path="/x", method="GET"), headers={}, max_bytes=100)
        finally:
            await http.aclose()

    def serve(listener: socket.socket) -> None:
        nonlocal connections
        for answer in answers:
            with suppress(TimeoutError):
                answer(listener)
                connections += 1

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(1)
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        asyncio.run(get(f"{scheme}://127.0.0.1:{listener.getsockname()[1]}"))
        thread.join()
    return connections


def test_a_failed_connection_is_not_tried_again() -> None:
    """Only a GET whose connection closed before the reply is sent again, and only once."""
    assert count_connections([answering(b"no TLS")] * 2, "https") == 1
    assert count_connections([answering(b"")] * 3, "http") == 2


def test_every_failure_is_known() -> None:
    """Every error of a connection and of the system has a meaning, and the narrower comes first."""
    errors = [
        each
        for module in (addresses, connection, pool)
        for each in vars(module).values()
        if isinstance(each, type)
        and issubclass(each, Exception)
        and each.__module__ == module.__name__
    ]
    assert len(errors) > 5
    kinds = dict.fromkeys((type for type, _, _ in FAILURES), 0)
    for error in (*errors, TimeoutError, OSError, ssl.SSLError):
        found = next(type for type in kinds if issubclass(error, type))
        assert found is not Exception, error
    assert {kind for _, kind, _ in FAILURES} <= set(MESSAGES)


NOW = datetime.now(UTC)
WAITS = [
    ({"retry-after": "3"}, "", 3),
    ({"retry-after": " 2.5 "}, "", 2.5),
    ({"retry-after": "0"}, "", 0),
    ({"retry-after-ms": "1500", "retry-after": "9"}, "", 1.5),
    ({"retry-after": format_datetime(NOW + timedelta(seconds=60), usegmt=True)}, "", 60),
    ({"retry-after": format_datetime(NOW - timedelta(seconds=60), usegmt=True)}, "", 0),
    ({"retry-after": "6m0s"}, "", 360),
    ({"retry-after": "-5"}, "", None),
    ({"retry-after": "soon"}, "", None),
    ({"retry-after": "9" * 400}, "", None),
    ({"retry-after": "Sat, 01 Jan 100000000000 00:00:00 GMT"}, "", None),
    ({"retry-after": "Sat, 01 Jan 9999 23:59:59 -2359"}, "", None),
    ({"retry-after": "Mon, 01 Jan 0001 00:00:00 +2359"}, "", 0),
    ({"retry-after": f"Sat, {'9' * 5000} Jan 2026 00:00:00 GMT"}, "", None),
    ({"retry-after": "99999999"}, "", None),
    ({"retry-after-ms": "soon", "retry-after": "4"}, "", 4),
    ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1m30s"}, "", 90),
    ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "20ms"}, "", 0.02),
    ({"x-ratelimit-remaining-tokens": "7", "x-ratelimit-reset-tokens": "20ms"}, "", None),
    ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(NOW.timestamp() + 30)}, "", 30),
    ({}, "Limit 3, Used 3. Please try again in 20s. Visit https://example", 20),
    ({}, "Please try again in 2.812s.", 2.812),
    ({}, "try again in 120ms", 0.12),
    ({}, "Please retry after 6 seconds.", 6),
    ({}, "please wait and try again later", None),
    ({}, "", None),
]


@pytest.mark.parametrize(("headers", "message", "wait_s"), WAITS)
def test_waits(headers: dict, message: str, wait_s: float | None) -> None:
    """Every form of waiting time is understood, and nonsense is ignored."""
    found = waits.retry_after_s(headers, message)
    if wait_s is None or found is None:
        assert found is wait_s
        return
    # The time until a date shrinks while the test runs.
    dated = any(character in str(headers) for character in ("GMT", "17"))
    assert found <= wait_s if dated else found == pytest.approx(wait_s)


NUMBERS = st.integers(-1, 10**12).map(str) | st.sampled_from(["00", "31", "2026", "9" * 5000])
DATES = st.builds(
    "{}, {} {} {} {}:{}:{} {}".format,
    *(st.sampled_from(["Sat", "Sunday", ""]), NUMBERS, st.sampled_from(["Jan", "feb", "13", ""])),
    *(NUMBERS, NUMBERS, NUMBERS, NUMBERS),
    st.sampled_from(["GMT", "EST", "-0000", "+2359", "-9999", "+99999999999", ""]) | NUMBERS,
)
DURATIONS = st.builds("{}{}{}ms".format, NUMBERS, st.sampled_from("dhms."), NUMBERS)
TIMES = st.text(max_size=40) | DATES | DURATIONS | NUMBERS


@given(TIMES, TIMES, st.text(max_size=60) | TIMES.map("Please try again in {}.".format))
def test_waits_of_anything(after: str, reset: str, message: str) -> None:
    """Whatever headers and message say, the wait is None or plausible."""
    spent = {"x-ratelimit-remaining": "0", "x-ratelimit-reset": reset}
    for headers in ({"retry-after": after, **spent}, {"retry-after-ms": after}, spent, {}):
        found = waits.retry_after_s(headers, message)
        assert found is None or 0 <= found <= waits.MAX_WAIT_S


@given(st.integers(300, 599), st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_errors_of_anything(status: int, body: bytes) -> None:
    """Any error reply becomes a failure with a valid answer for the client."""
    error = failures.read_error(HttpReply(status=status, headers={}, body=body))
    answer = error.client_error(model="m")
    assert 400 <= answer.status < 600
    assert answer.status != 500
    assert len(answer.message) < 600


SECRETS = [
    "Incorrect API key provided: sk-abcd1234efgh5678. You can find",
    "Incorrect API key provided: pk-MNLT****CqBD.",
    "Authorization: Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln was refused",
    "key AIzaSyA-1234567890abcdefghijklmnopqrst is not valid",
    "AKIAIOSFODNN7EXAMPLE is no key; wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "organization org-AbCdEf0123456789 in project proj_AbCdEf0123456789",
    "hf_abcdefghijklmnop and jina_abcdefghijkl and nvapi-abcdefghij",
]


PLAIN = [
    "The spa-like co-operation of all parts, al dente, is too long: max_input_length_per_request.",
    "This model's maximum context length is 8192 tokens, however you requested 8610 tokens",
    "invalid request: total number of texts must be at most 96 - received 104",
]


@pytest.mark.parametrize("message", PLAIN)
def test_what_looks_like_none(message: str) -> None:
    """Messages without secrets are quoted unchanged."""
    assert failures.clean_reason(message) == message


@pytest.mark.parametrize("message", SECRETS)
def test_what_looks_like_a_secret(message: str) -> None:
    """Messages are quoted without anything that looks like a key, a token or an account."""
    quoted = failures.clean_reason(message)
    words = [word.strip(".,;") for word in message.split()]
    secret = [word for word in words if any(map(str.isdigit, word)) or "_" in word or "*" in word]
    assert secret
    assert not [word for word in secret if word in quoted], quoted
