"""Chunks of a text: all of it, in order, within the limit."""

import itertools
import re

from hypothesis import given
from hypothesis import strategies as st

from embedway.corpora.chunks import Chunking, cut_row
from embedway.corpora.source import Row
from embedway.tokenizing import cl100k


def words(text: str) -> list[tuple[int, int]]:
    """Return where each word begins and ends."""
    return [match.span() for match in re.finditer(r"\S+", text)]


@given(st.text(), st.integers(2, 9), st.data())
def test_cover(text: str, tokens: int, data: st.DataObject) -> None:
    """Each token is in a chunk, chunks overlap as asked, and each knows its place."""
    overlap = data.draw(st.integers(0, tokens - 1))
    row = Row(id="r", text=text, digest=b"")
    chunks = cut_row(row, Chunking(tokens=tokens, overlap=overlap), words)
    for number, chunk in enumerate(chunks):
        assert chunk.row_id == "r"
        assert text[chunk.start : chunk.start + len(chunk.text)] == chunk.text
        if words(text):
            assert (chunk.id, chunk.chunk) == (f"r#{number}", number)
            assert len(words(chunk.text)) <= tokens
    found = [words(each.text) for each in chunks]
    places = [
        [each.start + start for start, _ in spans]
        for each, spans in zip(chunks, found, strict=True)
    ]
    assert {at for each in places for at in each} == {start for start, _ in words(text)}
    for one, other in itertools.pairwise(places):
        assert one[len(one) - overlap :] == other[:overlap]


@given(st.text(max_size=200))
def test_offsets_of_cl100k(text: str) -> None:
    """The places of OpenAI's tokens follow one another and cover the text."""
    offsets = cl100k.token_offsets(text)
    ends = [0, *(end for _, end in offsets)]
    assert ends[-1] == len(text)
    assert [start for start, _ in offsets] == ends[:-1]
