"""Reads the input file of a batch: one request a line, as JSON."""

from collections.abc import AsyncGenerator, AsyncIterable

import msgspec

from embedway.batches.job import BatchProblem

ENDPOINT = "/v1/embeddings"
MAX_CUSTOM_ID = 512
"""The most characters of a `custom_id`."""


class InputLine(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the input file."""

    number: int
    """From 1; empty lines count too."""
    content: bytes
    end_byte: int
    """Where the next line begins."""


class BatchRequest(msgspec.Struct, frozen=True):
    """One request of a batch."""

    custom_id: str
    method: str
    url: str
    body: msgspec.Raw


class LineInvalid(Exception):
    """A line of the input file is no request."""

    def __init__(self, problem: BatchProblem) -> None:
        super().__init__(problem.message)
        self.problem = problem


_DECODER = msgspec.json.Decoder(BatchRequest)


async def read_lines(
    pieces: AsyncIterable[bytes], *, number: int = 1, start: int = 0, max_bytes: int
) -> AsyncGenerator[InputLine]:
    """Yield the lines of a file that are not empty.

    Args:
        pieces: The content of the file from the start of a line on.
        number: The number of that line.
        start: Where in the file it begins.
        max_bytes: The longest line to read.

    Raises:
        LineInvalid: A line is longer.
    """
    rest = b""
    async for piece in pieces:
        lines = (rest + piece).split(b"\n")
        rest = lines.pop()
        for content in lines:
            start += len(content) + 1
            if content.strip():
                _check_length(content, number, max_bytes)
                yield InputLine(number=number, content=content, end_byte=start)
            number += 1
        _check_length(rest, number, max_bytes)
    if rest.strip():
        yield InputLine(number=number, content=rest, end_byte=start + len(rest))


def _check_length(content: bytes, number: int, max_bytes: int) -> None:
    if len(content) > max_bytes:
        raise _invalid(
            number, "invalid_json_line", f"The line is longer than {max_bytes} bytes. Split it."
        )


def parse_request(line: InputLine) -> BatchRequest:
    """Return the request of a line. Its body is not checked.

    Raises:
        LineInvalid: It is none for this gateway.
    """
    try:
        request = _DECODER.decode(line.content)
    except msgspec.ValidationError as error:
        code = "missing_required_parameter" if "missing" in str(error) else "invalid_json_line"
        raise _invalid(line.number, code, f"{error}. Correct it.") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _invalid(
            line.number, "invalid_json_line", "The line is not valid JSON. Correct it."
        ) from None
    if not 1 <= len(request.custom_id) <= MAX_CUSTOM_ID:
        raise _invalid(
            line.number,
            "invalid_custom_id",
            f"'custom_id' must have 1 to {MAX_CUSTOM_ID} characters.",
            param="custom_id",
        )
    if request.method != "POST":
        raise _invalid(line.number, "invalid_method", "'method' must be 'POST'.", param="method")
    if request.url != ENDPOINT:
        raise _invalid(line.number, "invalid_url", f"'url' must be '{ENDPOINT}'.", param="url")
    return request


def duplicate_error(line: InputLine) -> LineInvalid:
    """Return the error for a line whose `custom_id` an earlier line has."""
    return _invalid(
        line.number,
        "duplicate_custom_id",
        "An earlier line has the same 'custom_id'. Give each line its own.",
        param="custom_id",
    )


def _invalid(number: int, code: str, message: str, *, param: str | None = None) -> LineInvalid:
    return LineInvalid(BatchProblem(code=code, message=message, param=param, line=number))
