"""Encodes the result of a request as the body of its answer."""

from collections.abc import Generator, Iterator

from embedway.concurrency.turns import run_in_turns
from embedway.core.request import EmbedRequest
from embedway.pipeline.result import EmbedResult
from embedway.wire.encode import SLICE_VALUES, ResponseHead, encode


async def encode_result(
    request: EmbedRequest, result: EmbedResult, *, with_completion_tokens: bool = False
) -> list[bytes]:
    """Return the body in pieces; a small one in a single piece."""
    usage = {"prompt_tokens": result.tokens, "total_tokens": result.tokens}
    if with_completion_tokens:
        usage["completion_tokens"] = 0
    head = ResponseHead(
        model=request.model,
        usage=usage,
        id=result.id,
        created=result.created_s,
        provider=result.providers,
    )
    encoded = encode(head, result.vectors, encoding_format=request.encoding_format)
    if result.vectors.size <= SLICE_VALUES:
        return [b"".join(encoded)]
    pieces: list[bytes] = []
    await run_in_turns(_collect(encoded, pieces))
    return pieces


def _collect(encoded: Iterator[bytes], pieces: list[bytes]) -> Generator[None]:
    for piece in encoded:
        pieces.append(piece)
        yield
