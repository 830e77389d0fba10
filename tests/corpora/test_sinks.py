"""Every kind of sink does the same: what goes in comes out, once, and is found by its vector."""

import multiprocessing
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from sink_targets import TARGETS, target

from embedway.core.vectors import Vectors
from embedway.corpora.sinks.registry import KINDS, open_sink, parse_target
from embedway.corpora.sinks.sink import Collection, Point, Sink, SinkError

DIMENSIONS = 8
COLLECTION = Collection(space="m@1", model="m", dimensions=DIMENSIONS, source="rows.csv")

Open = Callable[[], Sink]


def vector(seed: int) -> Vectors:
    """Return a vector of length one."""
    made = np.random.default_rng(seed).standard_normal(DIMENSIONS).astype(np.float32)
    return made / np.linalg.norm(made)


def points(*numbers: int, text: str = "text", chunks: int = 1) -> list[Point]:
    """Return the points of some rows."""
    return [
        Point(
            id=f"row-{number}" if chunks == 1 else f"row-{number}#{chunk}",
            row_id=f"row-{number}",
            chunk=chunk,
            start=10 * chunk,
            text=f"{text} {number}.{chunk} 'ü\U0001f600\"",
        )
        for number in numbers
        for chunk in range(chunks)
    ]


def vectors(count: int, first: int = 0) -> Vectors:
    return np.stack([vector(first + at) for at in range(count)])


@pytest.fixture(params=sorted(TARGETS))
def open_again(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Return a function that opens the same sink each time; each test runs on every kind."""
    place = parse_target(target(request.param, request, tmp_path))
    opened: list[Sink] = []

    def open_one() -> Sink:
        for each in opened:
            each.close()
        opened.clear()
        opened.append(open_sink(place))
        return opened[0]

    yield open_one
    for each in opened:
        each.close()


def test_every_kind_is_tried() -> None:
    """No kind of sink is left out here."""
    assert set(TARGETS) == set(KINDS)


def test_collection(open_again: Open) -> None:
    """A new sink holds nothing, and then says what it holds."""
    sink = open_again()
    assert sink.read_collection() is None
    sink.create(COLLECTION)
    assert sink.read_collection() == COLLECTION
    sink = open_again()
    assert sink.read_collection() == COLLECTION
    assert sink.count() == 0
    assert sink.search(vector(1), top=3) == []


def test_search(open_again: Open) -> None:
    """Each point is found by its own vector, whole, and first; others follow by their cosine."""
    sink = open_again()
    sink.create(COLLECTION)
    made = vectors(20)
    sink.replace(points(*range(20)), made, known_rows=[])
    sink = open_again()
    assert sink.count() == 20
    for number in (0, 7, 19):
        hits = sink.search(vector(number), top=5)
        assert hits[0].point == points(number)[0]
        assert hits[0].score == pytest.approx(1.0, abs=1e-3)
        cosines = sorted((made @ vector(number)).tolist(), reverse=True)[:5]
        assert [each.score for each in hits] == pytest.approx(cosines, abs=1e-3)


def test_replace(open_again: Open) -> None:
    """Rows that come again take the place of what they were, whatever they were cut into."""
    sink = open_again()
    sink.create(COLLECTION)
    sink.replace(points(1, 2, chunks=3), vectors(6), known_rows=[])
    assert sink.count() == 6
    sink.replace(points(2, 3, text="new"), vectors(2, 10), known_rows=["row-2", "row-3"])
    sink = open_again()
    assert sink.count() == 5
    assert sink.search(vector(10), top=1)[0].point == points(2, text="new")[0]
    again = points(1, chunks=3)
    sink.replace(again, vectors(3), known_rows=["row-1"])
    assert sink.count() == 5
    assert sink.search(vector(1), top=1)[0].point == again[1]


def test_delete(open_again: Open) -> None:
    """Deleted rows are gone with all their points, and others stay."""
    sink = open_again()
    sink.create(COLLECTION)
    sink.replace(points(*range(10), chunks=2), vectors(20), known_rows=[])
    sink.delete(["row-3", "row-4", "none"])
    sink.delete([])
    sink = open_again()
    assert sink.count() == 16
    found = {each.point.row_id for each in sink.search(vector(6), top=20)}
    assert found == {f"row-{number}" for number in range(10)} - {"row-3", "row-4"}


def test_odd_ids(open_again: Open) -> None:
    """Ids may be any text."""
    ids = ["", " ", "a'b\"c", "ü/\U0001f600", "x" * 400, "1", "0001", "a,b", "%_\\"]
    made = [Point(id=each, row_id=each, text="t") for each in ids]
    sink = open_again()
    sink.create(COLLECTION)
    sink.replace(made, vectors(len(ids)), known_rows=ids)
    sink.replace(made, vectors(len(ids)), known_rows=ids)
    assert sink.count() == len(ids)
    assert {each.point.id for each in sink.search(vector(0), top=99)} == set(ids)
    sink.delete(ids[:-1])
    assert [each.point.id for each in sink.search(vector(0), top=99)] == ids[-1:]


def test_many(open_again: Open) -> None:
    """Thousands of points at once are stored whole."""
    sink = open_again()
    sink.create(COLLECTION)
    made = vectors(3_000)
    for start in (0, 1_500):
        sink.replace(
            points(*range(start, start + 1_500)), made[start : start + 1_500], known_rows=[]
        )
    sink = open_again()
    assert sink.count() == 3_000
    assert sink.search(vector(2_345), top=1)[0].point.row_id == "row-2345"


def _write_and_die(name: str) -> None:
    sink = open_sink(parse_target(name))
    sink.create(COLLECTION)
    sink.replace(points(*range(50)), vectors(50), known_rows=[])
    os.kill(os.getpid(), 9)


@pytest.mark.parametrize("kind", sorted(TARGETS))
def test_kill(request: pytest.FixtureRequest, tmp_path: Path, kind: str) -> None:
    """What was stored is there after `kill -9`."""
    name = target(kind, request, tmp_path)
    process = multiprocessing.get_context("spawn").Process(target=_write_and_die, args=(name,))
    process.start()
    process.join()
    assert process.exitcode == -9
    sink = open_sink(parse_target(name))
    assert sink.read_collection() == COLLECTION
    assert sink.count() == 50
    sink.close()


@pytest.mark.parametrize(
    ("name", "problem"),
    [("vectors", "names no sink"), ("redis:x", "names no sink"), ("npy:", "says no place")],
)
def test_names(name: str, problem: str) -> None:
    """A name that is none says how to write one."""
    with pytest.raises(SinkError, match=problem):
        parse_target(name)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("postgresql://me:s3cret@host/db#docs", "postgresql://host/db#docs"),
        ("qdrant:https://:s3cret@host:6333", "qdrant:https://host:6333"),
        ("npy:folder", "npy:folder"),
    ],
)
def test_no_password_is_shown(name: str, shown: str) -> None:
    """What is shown of a sink's name has no credentials, and names it whole otherwise."""
    assert parse_target(name).shown == shown
    assert str(parse_target(name)) == name
    assert parse_target(str(parse_target(name).absolute())).kind == name.partition(":")[0]
