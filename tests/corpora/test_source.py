"""Rows of every kind of file, from a folder and from an S3-compatible store."""

import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path

import obstore
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from object_server import BUCKET
from obstore.store import S3Store

from embedway.corpora.source import (
    RejectedRow,
    Row,
    RowCondition,
    Source,
    SourceError,
    SourceOptions,
)

TEXTS = {"1": "one", "2": 'two, "quoted"\nand broken', "3": "drei ü \U0001f600"}


def rows_of(place: Path | str, **options: object) -> tuple[dict[str, str], list[RejectedRow]]:
    """Return the texts by id, and the rejected rows."""
    source = Source(SourceOptions(**{"place": str(place), "text": "t", "id": "i"} | options))
    rows: list[Row] = []
    rejected: list[RejectedRow] = []
    for batch in source.read():
        rows += batch.rows
        rejected += batch.rejected
        assert 0 <= batch.bytes_read <= source.total_bytes
    assert len({row.digest for row in rows}) == len({row.text for row in rows})
    return {row.id: row.text for row in rows}, rejected


def as_csv(delimiter: str = ",") -> bytes:
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter)
    writer.writerow(["i", "t", "n"])
    writer.writerows([id, text, len(text)] for id, text in TEXTS.items())
    return out.getvalue().encode()


def as_json_lines() -> bytes:
    return b"\n".join(json.dumps({"i": int(i), "t": t}).encode() for i, t in TEXTS.items())


def as_parquet() -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table({"t": list(TEXTS.values()), "i": list(TEXTS)}), out)
    return out.getvalue()


FILES: dict[str, Callable[[], bytes]] = {
    "a.csv": as_csv,
    "a.csv.gz": lambda: gzip.compress(as_csv()),
    "a.tsv": lambda: as_csv("\t"),
    "a.jsonl": as_json_lines,
    "a.ndjson.gz": lambda: gzip.compress(as_json_lines()),
    "a.parquet": as_parquet,
}


@pytest.mark.parametrize("name", FILES)
def test_formats(tmp_path: Path, name: str) -> None:
    """Every format gives the same rows."""
    (tmp_path / name).write_bytes(FILES[name]())
    assert rows_of(tmp_path / name) == (TEXTS, [])
    assert rows_of(tmp_path) == (TEXTS, [])


@pytest.mark.parametrize("name", FILES)
def test_objects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, s3: dict[str, str], name: str
) -> None:
    """The same files in a bucket give the same rows, by key, folder and pattern."""
    for variable, value in s3.items():
        monkeypatch.setenv(variable, value)
    folder = f"{tmp_path.name}/deep"
    store = S3Store(BUCKET, client_options={"allow_http": True})
    obstore.put(store, f"{folder}/{name}", FILES[name]())
    obstore.put(store, f"{folder}-other/x.csv", b"i,t\n9,other\n")
    for place in (f"{folder}/{name}", folder, f"{folder}/", f"{folder}/a.*"):
        assert rows_of(f"s3://{BUCKET}/{place}") == (TEXTS, [])


def test_plain_text(tmp_path: Path) -> None:
    """Each line of plain text is a row; its id says where it is."""
    (tmp_path / "a.txt").write_bytes("\ufeffone\r\n\ntwo\u2028still two\n".encode() + b"\xff\n")
    found, rejected = rows_of(tmp_path / "a.txt", text=None, id=None)
    assert found == {"a.txt:1": "one", "a.txt:3": "two\u2028still two"}
    assert [(each.place.rpartition(":")[2], each.reason) for each in rejected] == [
        ("2", "Its text is empty."),
        ("4", "The line is not UTF-8."),
    ]


def test_many_files(tmp_path: Path) -> None:
    """A folder or a pattern gives all files in the order of their names."""
    for name in ("b", "a", "c/d"):
        path = tmp_path / f"{name}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
    (tmp_path / "notes.md").write_text("not read")
    (tmp_path / "c" / "a.txt").write_text("c/a")
    found, rejected = rows_of(tmp_path, text=None, id=None)
    assert found == {"a.txt:1": "a", "b.txt:1": "b", "c/a.txt:1": "c/a", "c/d.txt:1": "c/d"}
    assert not rejected
    assert len(rows_of(f"{tmp_path}/*.txt", text=None, id=None)[0]) == 2
    assert rows_of(f"{tmp_path}/**/*.txt", text=None, id=None)[0] == found


def test_rejected_rows(tmp_path: Path) -> None:
    """A row at fault is set aside with the reason, and the others are read."""
    lines = [
        b'{"i": 1, "t": "good"}',
        b"{",
        b"[1]",
        b'{"t": "no id"}',
        b'{"i": 2}',
        b'{"i": 3, "t": 5}',
        b'{"i": 4, "t": "  "}',
        b'{"i": 5, "t": "\xff"}',
        b'{"i": 6, "t": "good too"}',
    ]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    found, rejected = rows_of(tmp_path)
    assert found == {"1": "good", "6": "good too"}
    assert [each.place.rpartition(":")[2] for each in rejected] == list("2345678")
    (tmp_path / "b.csv").write_bytes(b"i,t\n1,good\n2,a,b\n3\n4,\xff\n5,fine\n")
    found, rejected = rows_of(tmp_path / "b.csv")
    assert found == {"1": "good", "5": "fine"}
    assert [each.place.rpartition(":")[2] for each in rejected] == list("345")


def test_long_lines(tmp_path: Path) -> None:
    """A line that is too long is set aside, and the next one is read."""
    (tmp_path / "a.txt").write_bytes(b"x" * 40 * 2**20 + b"\nshort\n")
    found, rejected = rows_of(tmp_path, text=None, id=None)
    assert found == {"a.txt:2": "short"}
    assert "longer than" in rejected[0].reason


@pytest.mark.parametrize(
    ("condition", "ids"),
    [
        ("n=3", {"1"}),
        ("n!=3", {"2", "3"}),
        ("n>10", {"2"}),
        ("n<=8", {"1", "3"}),
        ("t=one", {"1"}),
        ("t>one", {"2"}),
        ("i>=2", {"2", "3"}),
    ],
)
def test_where(tmp_path: Path, condition: str, ids: set[str]) -> None:
    """A condition selects rows; numbers are compared as numbers."""
    (tmp_path / "a.csv").write_bytes(as_csv())
    assert set(rows_of(tmp_path, where=(RowCondition.parse(condition),))[0]) == ids


def test_limit(tmp_path: Path) -> None:
    """A limit ends the reading, also across files."""
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text("\n".join(f"{name}{n}" for n in range(1_000)))
    for limit in (1, 512, 1_000, 1_500):
        assert len(rows_of(tmp_path, text=None, id=None, limit=limit)[0]) == limit


@pytest.mark.parametrize(
    ("content", "options", "problem"),
    [
        (None, {}, "There is no file"),
        (b"i,x\n1,a\n", {}, "has no column 't'. It has 'i', 'x'"),
        (b"", {}, "has no column"),
        (b"i,t\n", {"text": None}, "--text"),
    ],
)
def test_sources_at_fault(
    tmp_path: Path, content: bytes | None, options: dict[str, object], problem: str
) -> None:
    """A source that cannot be read says why."""
    if content is not None:
        (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(SourceError, match=problem):
        rows_of(tmp_path / "a.csv", **options)


@pytest.mark.parametrize("name", ["a.parquet", "a.csv.gz"])
@given(content=st.binary(max_size=99))
def test_damaged_files(tmp_path_factory: pytest.TempPathFactory, name: str, content: bytes) -> None:
    """A damaged file is an error that names it."""
    path = tmp_path_factory.mktemp("damaged") / name
    path.write_bytes(content)
    with pytest.raises(SourceError, match=name):
        rows_of(path)
