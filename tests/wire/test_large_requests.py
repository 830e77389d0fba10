"""A large request is decoded in steps, with the same result or the same error as a small one."""

import json
from typing import Any

import pytest
from conftest import Gateway
from hypothesis import example, given
from test_wire import bodies, requests, steady

from embedway.core.errors import InvalidRequest
from embedway.core.request import MAX_CHARACTERS
from embedway.wire.decode import LARGE_BYTES, decode, decode_in_steps

MAX_ITEMS = 2048


def in_steps(body: bytes) -> tuple[Any, int]:
    """Decode a body in steps; return the request or the error, and how many steps it took."""
    steps, count = decode_in_steps(body, max_items=MAX_ITEMS), 0
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value, count
        except InvalidRequest as error:
            return (error.message, error.param), count
        count += 1


def at_once(body: bytes) -> Any:
    try:
        return decode(body, max_items=MAX_ITEMS)
    except InvalidRequest as error:
        return error.message, error.param


@steady
@example(b'{"input":[[1],[2],["a"]]}')
@example(b'{"input":[[1],[2,-1]]}')
@example(b'{"input":[[1],2]}')
@example(b'{"input":[ [1] , [2] ]}')
@example(b'{"input":[[1],[[2]]]}')
@example(b'{"input":"' + b"\\u00e9" * 6000 + b'"}')
@example(b'{"input":"a\\')
@given(bodies)
def test_any_body(body: bytes) -> None:
    """Any body means the same in steps."""
    assert in_steps(body)[0] == at_once(body)


@steady
@given(requests)
def test_valid_bodies(fields: dict) -> None:
    """A valid body means the same in steps."""
    body = json.dumps(fields).encode()
    assert in_steps(body)[0] == at_once(body)


LISTS = [list(range(number, number + 700)) for number in range(400)]


@pytest.mark.parametrize(
    "items",
    [
        [f'text {number}, "quoted" \\ [1] 汉 \0 ' * 60 for number in range(MAX_ITEMS)],
        LISTS,
        [*LISTS[:-1], [1, -2]],
        [*LISTS[:-1], ["a"]],
        [*LISTS[:-1], [[1]]],
        [*LISTS[:-1], 5],
        [*LISTS[:-1], []],
        [[1]] * (MAX_ITEMS + 1) + [[1] * 99_000],
        list(range(MAX_CHARACTERS)),
        list(range(MAX_CHARACTERS + 1)),
        ["a" * (MAX_CHARACTERS + 1)] * 3,
    ],
    ids=str,
)
def test_large_inputs(items: list[Any]) -> None:
    """A large input means the same in steps, and an error names the same item."""
    body = json.dumps({"input": items}).encode()
    assert len(body) > LARGE_BYTES
    decoded, steps = in_steps(body)
    assert decoded == at_once(body)
    assert steps > len(body) // 2**17


def test_an_endless_list() -> None:
    """A list of far too many token ids among others is refused before it is decoded."""
    body = json.dumps({"input": [[1], [2], list(range(2 * MAX_CHARACTERS)), [3]]}).encode()
    (message, param), _ = in_steps(body)
    assert "'input[2]' has more than 100000 tokens" in message
    assert param == "input"


HOSTILE = {
    "arrays": (b'{"input":[' + b"[]," * 2_000_000 + b"[]]}", "array length must be 2048"),
    "mixed": (b'{"input":["a"' + b",[]" * 2_000_000 + b"]}", "array length must be 2048"),
    "strings": (b'{"input":[' + b'"",' * 2_000_000 + b'""]}', "array length must be 2048"),
    "escapes": (b'{"input":[' + b'"\\\\",' * 2_000_000 + b'""]}', "array length must be 2048"),
    "fields": (b'{"input":"a"' + b',"a" :1' * 1_000_000 + b"}", "more than 4096 fields"),
    "objects": (b'{"a":' * 1_000_000, "nested too deeply"),
    "metadata": (
        b'{"input":"a","metadata":{"a":"b"' + b',"a":"b"' * 1_000_000 + b"}}",
        "more than 4096 fields",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_bodies(name: str) -> None:
    """A body that would take long to decode is refused early."""
    body, said = HOSTILE[name]
    (message, _), steps = in_steps(body)
    assert said in message
    assert steps < 20_000


def test_over_http(gateway: Gateway) -> None:
    """A gateway answers a large body that is wrong with the place of the error."""
    body = json.dumps({"input": [*LISTS[:-1], [1, "a"]]}).encode()
    with gateway.client() as client:
        answer = client.post("/v1/embeddings", content=body)
    assert answer.status_code == 400
    assert "'input[399][1]'" in answer.json()["error"]["message"]
