"""The form of a file upload, in whatever pieces it arrives."""

from collections.abc import Sequence

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedway.core.errors import InvalidRequest, UnsupportedEncoding
from embedway.wire.upload import UploadForm


def form(fields: dict[str, str], *files: tuple[str, str, bytes]) -> tuple[bytes, bytes]:
    """Return the content type and the body of a form, as httpx makes it."""
    request = httpx.Request(
        "POST",
        "http://x",
        data=fields,
        files=[(field, (name, content)) for field, name, content in files],
    )
    return request.headers["content-type"].encode(), request.read()


def read(content_type: bytes, pieces: Sequence[bytes]) -> tuple[UploadForm, bytes]:
    """Read a whole form, and return it with the content of its file."""
    upload = UploadForm(content_type)
    content = b"".join(map(upload.feed, pieces))
    upload.check_complete()
    return upload, content


@given(
    content=st.binary(max_size=300) | st.sampled_from([b"\r\n--", b"--x\r\n\r\n", b"\r" * 9]),
    cuts=st.lists(st.integers(0, 900), max_size=9),
)
def test_pieces(content: bytes, cuts: list[int]) -> None:
    """The file and the fields are the same however the body is cut."""
    fields = {"purpose": "batch", "expires_after[seconds]": "3600"}
    kind, body = form(fields, ("file", "a.jsonl", content))
    ends = [*sorted(min(each, len(body)) for each in cuts), len(body)]
    pieces = [body[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    upload, found = read(kind, pieces)
    assert (upload.fields, upload.file_name, found) == (fields, "a.jsonl", content)


@given(st.binary(max_size=200))
def test_any_bytes(body: bytes) -> None:
    """Any bytes give a form or an error for the client."""
    _, whole = form({}, ("file", "a", body))
    upload = UploadForm(b"multipart/form-data; boundary=x")
    try:
        upload.feed(b"--x\r\n" + body)
        upload.feed(whole)
        upload.check_complete()
    except InvalidRequest:
        return


@pytest.mark.parametrize(
    "kind", [b"", b"application/json", b"multipart/form-data", b"multipart/form-data; boundary="]
)
def test_no_form(kind: bytes) -> None:
    """Another content type is refused with what to send."""
    with pytest.raises(UnsupportedEncoding, match="multipart/form-data"):
        UploadForm(kind)


@pytest.mark.parametrize(
    ("fields", "files", "problem"),
    [
        ({}, [("file", "a", b"1"), ("file", "b", b"2")], "two files"),
        ({"purpose": "x" * 2000}, [("file", "a", b"1")], "too long"),
        ({f"f{n}": "x" for n in range(99)}, [("file", "a", b"1")], "too many"),
        ({"purpose": "batch"}, [("document", "a", b"1")], "'file' is missing"),
    ],
)
def test_wrong_forms(
    fields: dict[str, str], files: list[tuple[str, str, bytes]], problem: str
) -> None:
    """What is wrong with a form is named."""
    kind, body = form(fields, *files)
    with pytest.raises(InvalidRequest, match=problem):
        read(kind, [body])


def test_cut_off() -> None:
    """A form that ends early is refused."""
    kind, body = form({"purpose": "batch"}, ("file", "a", b"1"))
    with pytest.raises(InvalidRequest, match="cannot be read"):
        read(kind, [body[:-4]])


def test_twice() -> None:
    """A field that is there twice is refused."""
    kind, body = form({"purpose": "batch"}, ("file", "a", b"1"))
    boundary = kind.rpartition(b"=")[2]
    again = b'--%b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nx\r\n' % boundary
    with pytest.raises(InvalidRequest, match="there twice"):
        read(kind, [again + body])


@pytest.mark.parametrize(
    ("sent", "kept"),
    [("../../etc/passwd", "passwd"), ("a\x1b[2Jb", "a[2Jb"), ("x" * 999, "x" * 256)],
)
def test_names(sent: str, kept: str) -> None:
    """Names lose their folders and what would disturb a terminal."""
    body = (
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="%b"\r\n\r\n1\r\n--x--\r\n'
        % sent.encode()
    )
    upload, _ = read(b"multipart/form-data; boundary=x", [body])
    assert upload.file_name == kept
