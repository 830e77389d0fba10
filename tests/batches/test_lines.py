"""The lines of a batch's input file."""

import asyncio
from collections.abc import AsyncGenerator

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedway.batches.lines import InputLine, LineInvalid, parse_request, read_lines

GOOD = {"custom_id": "1", "method": "POST", "url": "/v1/embeddings", "body": {"input": "a"}}


def lines_of(pieces: list[bytes], *, number: int = 1, start: int = 0) -> list[InputLine]:
    async def arrive() -> AsyncGenerator[bytes]:
        for each in pieces:
            yield each

    async def read() -> list[InputLine]:
        found = read_lines(arrive(), number=number, start=start, max_bytes=1000)
        return [line async for line in found]

    return asyncio.run(read())


@given(st.lists(st.sampled_from([b"a", b"b\n", b"\n", b"\r\n", b"{}\n", b"  "]), max_size=30))
def test_pieces_and_places(pieces: list[bytes]) -> None:
    """However a file is cut, its lines are the same, and reading may begin at any of them."""
    whole = b"".join(pieces)
    found = lines_of(pieces)
    assert found == lines_of([whole])
    texts = whole.split(b"\n")
    assert [(each.number, each.content) for each in found] == [
        (number, text) for number, text in enumerate(texts, 1) if text.strip()
    ]
    for at, line in enumerate(found):
        rest = lines_of([whole[line.end_byte :]], number=line.number + 1, start=line.end_byte)
        assert rest == found[at + 1 :]


def test_too_long() -> None:
    """A line that is too long is refused before it is read to its end."""
    with pytest.raises(LineInvalid) as error:
        lines_of([b"{}\n", b"x" * 800, b"x" * 800, b"x" * 10**6])
    assert (error.value.problem.line, error.value.problem.code) == (2, "invalid_json_line")


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"custom_id": ""}, "invalid_custom_id"),
        ({"custom_id": "x" * 999}, "invalid_custom_id"),
        ({"custom_id": 1}, "invalid_json_line"),
        ({"method": "GET"}, "invalid_method"),
        ({"url": "/v1/chat/completions"}, "invalid_url"),
        ({"url": None}, "invalid_json_line"),
    ],
)
def test_wrong_lines(fields: dict[str, object], code: str) -> None:
    """Each problem has OpenAI's word for it, and the number of the line."""
    content = msgspec.json.encode(GOOD | fields)
    with pytest.raises(LineInvalid) as error:
        parse_request(InputLine(number=7, content=content, end_byte=0))
    assert (error.value.problem.code, error.value.problem.line) == (code, 7)


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff", b'{"custom_id": "1"}', b"[" * 999])
def test_no_requests(content: bytes) -> None:
    """Bytes that are no request are refused."""
    with pytest.raises(LineInvalid):
        parse_request(InputLine(number=1, content=content, end_byte=0))


def test_more_fields() -> None:
    """Other fields are ignored, as at OpenAI."""
    content = msgspec.json.encode(GOOD | {"comment": "x"})
    request = parse_request(InputLine(number=1, content=content, end_byte=0))
    assert msgspec.json.decode(request.body) == GOOD["body"]
