"""Bytes to a request, strictly: whatever the bytes, a valid `EmbedRequest` or a clear 400.

Types and ranges are those annotated in `core.request`; what no annotation can say is checked here.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any, Literal, cast, get_args, get_origin

import msgspec

from embedway.core.errors import EmbedwayError, InvalidRequest, shown
from embedway.core.request import MAX_CHARACTERS, MAX_ITEMS, EmbedRequest

# Never taken from `extra_body`: what the gateway itself decides, and where and as whom it asks.
PROTECTED = frozenset(
    {
        *("input", "model", "encoding_format"),
        *("api_key", "authorization", "organization", "project"),
        *("api_base", "api_version", "base_url", "url", "endpoint", "host", "proxy"),
        *("headers", "extra_headers", "default_headers"),
    }
)
MAX_NAME_CHARACTERS = 64
"""Of a field for the provider; a longer one is no parameter but a text gone astray."""

_FIELDS = frozenset(EmbedRequest.__struct_fields__)
_JSON = msgspec.json.Decoder()
_PATH = re.compile(r"^(?P<reason>.*?)(?: - at (?P<path>.*))?$", re.DOTALL)
_FIELD = re.compile(r"\$\.(\w+)")
_KINDS = {
    type(None): "null",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    str: "a string",
    list: "an array",
}


def decode(body: bytes | bytearray) -> EmbedRequest:
    """The request in `body`.

    Raises:
        InvalidRequest: Not JSON, not an object, or a field that breaks its rules; `param` names
            the field.
    """
    fields = _json_object(body)
    # null means the default, and what is unknown is for the provider.
    known = {name: value for name, value in fields.items() if value is not None}
    unknown = {name: known.pop(name) for name in known.keys() - _FIELDS}
    if "input" not in known:
        raise InvalidRequest(
            "The field 'input' is missing. Send the text to embed, or a list of texts.",
            param="input",
        )
    _check_count(known["input"])
    try:
        request = msgspec.convert(known, EmbedRequest)
    except msgspec.ValidationError as error:
        raise _explained(error, known) from None
    _check_input(request)
    _check_text("model", (request.model,))
    _check_text("user", (request.user or "",))
    _check_text("metadata", (*request.metadata, *request.metadata.values()))
    if unknown:
        extra = unknown | request.extra_body
        request = msgspec.structs.replace(request, extra_body=extra)
    for name in request.extra_body:
        _check_extra(name)
    return request


def _json_object(body: bytes | bytearray) -> dict[str, Any]:
    if not body:
        raise InvalidRequest("The body is empty. Send a JSON object with the field 'input'.")
    try:
        fields = _JSON.decode(body)
    except RecursionError:
        raise InvalidRequest("The body is nested too deeply. Send a flat JSON object.") from None
    except UnicodeDecodeError:
        raise InvalidRequest("The body is not valid UTF-8. Encode it as UTF-8.") from None
    except msgspec.MsgspecError as error:
        reason = str(error).removeprefix("JSON is malformed: ").partition(" - at ")[0]
        cure = "Each \\u surrogate must be half of a pair." if b"\\u" in body else "Correct it."
        raise InvalidRequest(f"The body is not valid JSON: {reason}. {cure}") from None
    if not isinstance(fields, dict):
        # Described, not shown: it may be texts.
        raise InvalidRequest(
            f"The body must be a JSON object, not {_KINDS[type(fields)]}. Send one with the field "
            "'input'."
        )
    return cast("dict[str, Any]", fields)


def _explained(error: msgspec.ValidationError, fields: dict[str, Any]) -> EmbedwayError:
    """The validation error with the field, its value and the cure."""
    match = _PATH.match(str(error))
    reason, path = match.group("reason", "path") if match else (str(error), None)
    field = _FIELD.search(path or "")
    if field is None:
        return InvalidRequest(f"{reason}. Send a JSON object with the field 'input'.")
    name = field[1]
    # Texts are the caller's: of an input the place is named, never the value shown.
    where = "'" + (path or "").strip("`").removeprefix("$.") + "'"
    at_fault = where if name == "input" else f"'{name}' is {shown(fields[name])}"
    return InvalidRequest(f"{at_fault}: {reason}. {_cure(name)}", param=name)


def _cure(name: str) -> str:
    """What may be sent in this field."""
    parts = list(_parts(EmbedRequest.__annotations__[name]))
    choices = [
        repr(each) for part in parts if get_origin(part) is Literal for each in get_args(part)
    ]
    use = f"Use {', '.join(choices[:-1])} or {choices[-1]}. " if choices else ""
    described = (each.description for each in parts if isinstance(each, msgspec.Meta))
    return use + next(filter(None, described))


def _parts(annotation: Any) -> Iterator[Any]:
    yield annotation
    for part in get_args(annotation):
        yield from _parts(part)


def _check_count(items: Any) -> None:
    # Before anything looks at the items one by one: a body may hold millions of empty ones.
    if not isinstance(items, list):
        return
    items = cast("list[Any]", items)
    count = len(items)
    ids = count > 0 and isinstance(items[0], int)  # one item, of token ids
    most, unit = (MAX_CHARACTERS, "tokens") if ids else (MAX_ITEMS, "items")
    if not 1 <= count <= most:
        raise InvalidRequest(
            f"'input' has {count} {unit}; it must have 1 to {most}. Send fewer at a time.",
            param="input",
        )


def _check_input(request: EmbedRequest) -> None:
    items = request.input
    if isinstance(items, str):
        _check_item(items, "input")
        return
    kinds = set(map(type, items))
    if len(kinds) > 1:
        raise InvalidRequest(
            "'input' mixes texts and token ids. Send only strings, only token ids, or only lists "
            "of token ids.",
            param="input",
        )
    if kinds != {int}:
        for index, item in enumerate(cast("list[str | list[int]]", items)):
            if not 1 <= len(item) <= MAX_CHARACTERS:
                _check_item(item, f"input[{index}]")


def _check_item(item: str | list[int], where: str) -> None:
    if not item:
        raise InvalidRequest(
            f"'{where}' is empty. An item needs at least one character or token; take it out.",
            param="input",
        )
    if len(item) > MAX_CHARACTERS:
        unit = "characters" if isinstance(item, str) else "tokens"
        raise InvalidRequest(
            f"'{where}' has {len(item)} {unit}, max {MAX_CHARACTERS}. Split it.", param="input"
        )


def _check_text(name: str, values: Iterable[str]) -> None:
    # A NUL is fine in a text but not in what is stored, compared and printed as an id.
    if any("\0" in value for value in values):
        raise InvalidRequest(f"'{name}' holds a NUL character. Take it out.", param=name)


def _check_extra(name: str) -> None:
    if not 1 <= len(name) <= MAX_NAME_CHARACTERS:
        raise InvalidRequest(
            f"A field has a name of {len(name)} characters; it must have 1 to "
            f"{MAX_NAME_CHARACTERS}. Take it out."
        )
    if name.lower() in PROTECTED:
        raise InvalidRequest(
            f"{name!r} is this gateway's to decide; it is not handed to a provider. Take it out.",
            param=name,
        )
