"""Reads the form of a file upload, `multipart/form-data`, piece by piece as it arrives."""

import re
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from embedway.core.errors import InvalidRequest, UnsupportedEncoding, quote_text

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

MAX_FIELDS = 16
MAX_FIELD_BYTES = 1024
MAX_NAME_CHARACTERS = 256
FORM_BYTES = 2**16
"""The most bytes of a form besides its file."""

_BROKEN = InvalidRequest("The form of the upload cannot be read. Send it as multipart/form-data.")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


class UploadForm:
    """A form with one file, in a field named `file`, and some short texts."""

    def __init__(self, content_type: bytes) -> None:
        """Read a form with this Content-Type.

        Raises:
            UnsupportedEncoding: It is no form.
        """
        kind, options = parse_options_header(content_type)
        if kind != b"multipart/form-data" or not options.get(b"boundary"):
            raise UnsupportedEncoding(
                "A file is uploaded as multipart/form-data, with the fields 'file' and 'purpose'."
            )
        self.fields: dict[str, str] = {}
        """The texts of the form so far, by name."""
        self.file_name: str | None = None
        """The name of the file, once it has begun."""
        self._name = b""
        self._header = b""
        self._value = b""
        self._headers: dict[bytes, bytes] = {}
        self._is_file = self._has_ended = False
        self._text = bytearray()
        self._file: list[bytes] = []
        callbacks: MultipartCallbacks = {
            "on_part_begin": self._begin_part,
            "on_header_field": self._read_header_name,
            "on_header_value": self._read_header_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._end_headers,
            "on_part_data": self._read_data,
            "on_part_end": self._end_part,
            "on_end": self._end,
        }
        self._parser = MultipartParser(options[b"boundary"], callbacks)

    def feed(self, piece: bytes) -> bytes:
        """Read the next piece of the body, and return the bytes of the file in it.

        Raises:
            InvalidRequest: The body is no such form.
        """
        try:
            self._parser.write(piece)
        except FormParserError:
            raise _BROKEN.copy() from None
        found = b"".join(self._file)
        self._file.clear()
        return found

    def check_complete(self) -> None:
        """Check that the form has come to its end and had a file.

        Raises:
            InvalidRequest: It is cut off, or had none.
        """
        if not self._has_ended:
            raise _BROKEN.copy()
        if self.file_name is None:
            raise InvalidRequest("The field 'file' is missing. Send the file.", param="file")

    def _begin_part(self) -> None:
        self._headers.clear()
        self._text.clear()
        self._header = self._value = b""

    def _read_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _read_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        self._headers[self._header.lower()] = self._value
        self._header = self._value = b""

    def _end_headers(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        self._name = options.get(b"name", b"")
        self._is_file = self._name == b"file"
        if not self._is_file:
            return
        if self.file_name is not None:
            raise InvalidRequest("There are two files in the form. Send one.", param="file")
        self.file_name = _clean(options.get(b"filename", b""))

    def _read_data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self._file.append(data[start:end])
            return
        self._text += data[start:end]
        if len(self._text) > MAX_FIELD_BYTES or len(self.fields) >= MAX_FIELDS:
            raise InvalidRequest("The form has fields that are too long, or too many of them.")

    def _end_part(self) -> None:
        if self._is_file:
            return
        name = self._name.decode("utf-8", "replace")
        if name in self.fields:
            raise InvalidRequest(f"The field {quote_text(name)} is there twice.", param=name)
        self.fields[name] = self._text.decode("utf-8", "replace")

    def _end(self) -> None:
        self._has_ended = True


def _clean(name: bytes) -> str:
    """Return the name of a file without its folder and characters that no terminal shows."""
    text = name.decode("utf-8", "replace").rpartition("/")[2]
    return _UNPRINTABLE.sub("", text)[:MAX_NAME_CHARACTERS] or "file"
