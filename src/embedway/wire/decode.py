"""Decodes a request body strictly: any bytes give a valid `EmbedRequest` or a clear 400.

Types and ranges are annotated in `core.request`. What annotations cannot express is checked here.
"""

import re
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping
from typing import Any, Literal, cast, get_args, get_origin

import msgspec

from embedway.concurrency.turns import run_in_turns
from embedway.core.errors import SHOWN_CHARACTERS, EmbedwayError, InvalidRequest, quote_value
from embedway.core.redaction import contains_secret
from embedway.core.request import MAX_CHARACTERS, EmbedRequest, normalise_name
from embedway.wire.near_fields import suggest_field

PROTECTED = frozenset(
    {
        *("input", "model", "encodingformat"),
        *("apikey", "apikeys", "authorization", "organization", "key", "token"),
        *("project", "projectid", "spaceid", "aiprojectid"),
        *("apibase", "apiversion", "baseurl", "url", "endpoint", "host", "proxy"),
        *("headers", "extraheaders", "defaultheaders", "httpheaders"),
    }
)
"""Normalised names of fields that a client cannot send on to a provider, because the gateway
decides them. `providers.adapter.GATEWAY_FIELDS` adds those of each protocol."""
MAX_EXTRA = 64
"""The most fields that a request may send on to a provider."""
MAX_NAME_CHARACTERS = 64
"""The longest name of a field for the provider. A longer one is probably a misplaced text."""

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_DECODERS: dict[str, msgspec.json.Decoder[Any]] = {
    name: msgspec.json.Decoder(annotation)
    for name, annotation in EmbedRequest.__annotations__.items()
} | {"extra_body": _OBJECT}
_NULL = msgspec.Raw(b"null")
_PATH = re.compile(r"^(?P<reason>.*?)(?: - at (?P<path>.*))?$", re.DOTALL)
MAX_SHOWN_BYTES = 65_536
"""The largest wrong value to show in an error, in bytes."""
_KINDS = {
    b'"': "a string",
    b"[": "an array",
    b"t": "a boolean",
    b"f": "a boolean",
    b"n": "null",
}
"""What a JSON value is, by its first byte. Any other first byte begins a number."""
_NAME = re.compile(rb'[\s{,]*("(?:[^"\\]++|\\.)*+")\s*:\s*')
"""Matches the name of a member of a JSON object, up to its value."""

LARGE_BYTES = 2**18
"""Decode a body larger than this in steps; a smaller one takes less than a millisecond or two."""
STEP_BYTES = 2**15
MAX_MEMBERS = 4096
"""How many values a large body may have besides its items, and how many fields in all objects."""
_MEMBERS = re.compile(rb'(?:[^"]++|"[^"\\]{0,512}+")*+')
_STRINGS = re.compile(rb'"[^"]*+"')
_CHARACTERS = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
_LISTS = re.compile(rb"\[\s*+\[")
_COMMA = re.compile(rb"\s*+,?+\s*+")
_INDEX = re.compile(r"\[(\d+)\]")


def decode(body: bytes | bytearray, *, max_items: int) -> EmbedRequest:
    """Decode a request body with at most `max_items` items.

    Raises:
        InvalidRequest: The body is not a JSON object, or a field breaks its rules; `param` names
            the field.
    """
    members = _json_object(body)
    _check_unique(body, members)
    return _request(body, members, max_items)


async def decode_body(body: bytes, *, max_items: int) -> EmbedRequest:
    """Decode a request body as `decode` does, and a large one without holding the event loop up."""
    if len(body) > LARGE_BYTES:
        return await run_in_turns(decode_in_steps(body, max_items=max_items))
    return decode(body, max_items=max_items)


def decode_in_steps(body: bytes, *, max_items: int) -> Generator[None, None, EmbedRequest]:
    """Decode a large body as `decode` does. Yields after each step.

    Raises:
        InvalidRequest: As for `decode`; also, the body has more members than any that makes sense.
    """
    yield from _check_size(body, max_items)
    members = _json_object(body)
    yield
    _check_unique(body, members)
    yield
    raw, items = bytes(members.get("input", _NULL)), None
    if b'"' not in raw:
        if _LISTS.match(raw):
            items = yield from _token_lists(raw)
        elif raw.count(b"[") == 1 and raw.count(b",") >= MAX_CHARACTERS:
            raise _too_many_tokens(raw.count(b",") + 1)
    return _request(body, members, max_items, items)


def _request(
    body: bytes | bytearray,
    members: dict[str, msgspec.Raw],
    max_items: int,
    items: list[list[int]] | None = None,
) -> EmbedRequest:
    """Check the members of a body; `items` are its input, if that is decoded already."""
    # Each known field is decoded by its own rules. Fields for the provider are passed on undecoded,
    # so that they cost nothing however large they are.
    fields = {name: raw for name, raw in members.items() if raw != _NULL}
    unknown = {name: raw for name, raw in fields.items() if name not in _DECODERS}
    _check_names(unknown)
    if "input" not in fields:
        raise InvalidRequest(
            "The field 'input' is missing. Send the text to embed, or a list of texts.",
            param="input",
        )
    if items is not None:
        del fields["input"]
    known = {name: _field(name, fields[name]) for name in _DECODERS if name in fields}
    if items is not None:
        known["input"] = items
    _check_count(known["input"], max_items)
    if "extra_body" in known:
        _check_unique(bytes(fields["extra_body"]), known["extra_body"])
    if "metadata" in known:
        _check_unique(bytes(fields["metadata"]), _OBJECT.decode(fields["metadata"]))
    known["extra_body"] = unknown | known.get("extra_body", {})
    request = EmbedRequest(**known)
    _check_input(request)
    # JSON holds a NUL only as an escape.
    if b"\\u0000" in body:
        _check_text("model", (request.model,))
        _check_text("user", (request.user or "",))
        _check_text("metadata", (*request.metadata, *request.metadata.values()))
    if contains_secret(request.model):
        raise InvalidRequest(
            "'model' holds what looks like an API key. Send a key as Authorization, and nowhere "
            "else.",
            param="model",
        )
    _check_extra(request.extra_body)
    return request


def _check_size(body: bytes, max_items: int) -> Generator[None, None, None]:
    """Refuse a body that would take long to decode because of how much it holds, not how long.

    Raises:
        InvalidRequest: It holds too many strings, arrays or fields.
    """
    most = max_items + MAX_MEMBERS
    values = names = at = 0
    while at < len(body):
        found = _MEMBERS.match(body, at, at + STEP_BYTES)
        end = found.end() if found else at
        if end == at:  # a long string, or no string at all
            end = yield from _end_of_string(body, at)
            values += 1
        else:
            piece = _STRINGS.sub(b'"', body[at:end])
            values += piece.count(b'"') + piece.count(b"[") + piece.count(b"{")
            names += piece.count(b":")
        if names > MAX_MEMBERS:
            raise InvalidRequest(
                f"The body has more than {MAX_MEMBERS} fields, or is nested too deeply. Send a "
                "flat JSON object."
            )
        if values > most + names:
            raise InvalidRequest(
                f"The body has more than {most} values. 'input' may have {max_items} items: the "
                f"array length must be {max_items} or less. Send fewer at a time. Only this "
                "gateway's operator can allow more, with the setting max_items.",
                param="input",
            )
        at = end
        yield


def _end_of_string(body: bytes, at: int) -> Generator[None, None, int]:
    """Return where the string that begins at `at` ends; at the end of the body if it does not."""
    at += 1
    while True:
        found = _CHARACTERS.match(body, at, at + STEP_BYTES)
        end = found.end() if found else at
        if end in (at, len(body)) or body[end] == ord('"'):
            return min(end + 1, len(body))
        at = end
        yield


def _token_lists(raw: bytes) -> Generator[None, None, list[list[int]]]:
    """Decode an array of arrays, in steps of whole ones."""
    items: list[list[int]] = []
    at, stop = 1, len(raw) - 1
    while at < stop:
        least = at + STEP_BYTES
        end = raw.find(b"]", least, stop) + 1 or stop
        # Each comma after `least` is between two ids of the last array.
        if raw.count(b",", least, end) >= MAX_CHARACTERS:
            place = len(items) + raw.count(b"]", at, least)
            raise InvalidRequest(
                f"'input[{place}]' has more than {MAX_CHARACTERS} tokens. Split it.", param="input"
            )
        items += _field("input", msgspec.Raw(b"[" + raw[at:end] + b"]"), first=len(items))
        at = end + len(cast("re.Match[bytes]", _COMMA.match(raw, end))[0])
        yield
    return items


def _json_object(body: bytes | bytearray) -> dict[str, msgspec.Raw]:
    if not body:
        raise InvalidRequest("The body is empty. Send a JSON object with the field 'input'.")
    try:
        body.decode()  # checks the bytes that are not decoded below
        return _OBJECT.decode(body)
    except RecursionError:
        raise InvalidRequest("The body is nested too deeply. Send a flat JSON object.") from None
    except UnicodeDecodeError:
        raise InvalidRequest("The body is not valid UTF-8. Encode it as UTF-8.") from None
    except msgspec.ValidationError:
        # The value is described and not shown, because it may be the client's text.
        kind = _KINDS.get(bytes(body.lstrip()[:1]), "a number")
        raise InvalidRequest(
            f"The body must be a JSON object, not {kind}. Send one with the field 'input'."
        ) from None
    except msgspec.DecodeError as error:
        raise _malformed(error, body) from None


def _malformed(error: msgspec.DecodeError, body: bytes | bytearray | msgspec.Raw) -> EmbedwayError:
    reason = str(error).removeprefix("JSON is malformed: ").partition(" - at ")[0]
    cure = "Each \\u surrogate must be half of a pair." if b"\\u" in bytes(body) else "Correct it."
    return InvalidRequest(f"The body is not valid JSON: {reason}. {cure}")


def _field(name: str, raw: msgspec.Raw, *, first: int = 0) -> Any:
    """Decode a known field by its rules; errors count its items from `first`."""
    try:
        return _DECODERS[name].decode(raw)
    except msgspec.ValidationError as error:
        match = _PATH.match(str(error))
        reason, path = match.group("reason", "path") if match else (str(error), None)
        place = name + (path or "$").strip("`").removeprefix("$")
        if first:
            place = _INDEX.sub(lambda index: f"[{int(index[1]) + first}]", place, count=1)
        # An error in the input names the place but never shows the client's text.
        at_fault = f"'{place}'" if name == "input" else f"'{name}' is {_show(raw)}"
        raise InvalidRequest(f"{at_fault}: {reason}. {_cure(name)}", param=name) from None
    except msgspec.DecodeError as error:
        raise _malformed(error, raw) from None
    except RecursionError:
        raise InvalidRequest(f"'{name}' is nested too deeply. {_cure(name)}", param=name) from None


def _show(raw: msgspec.Raw) -> str:
    if memoryview(raw).nbytes > MAX_SHOWN_BYTES:
        return "too long to show"
    try:
        return quote_value(msgspec.json.decode(raw))
    except RecursionError:
        return "too deeply nested"
    except msgspec.MsgspecError:  # a number that no number type holds
        return bytes(raw)[:SHOWN_CHARACTERS].decode()


def _cure(name: str) -> str:
    """Say what may be sent in this field."""
    types = list(_walk(EmbedRequest.__annotations__[name]))
    choices = [
        repr(each) for type_ in types if get_origin(type_) is Literal for each in get_args(type_)
    ]
    use = f"Use {', '.join(choices[:-1])} or {choices[-1]}. " if choices else ""
    descriptions = (each.description for each in types if isinstance(each, msgspec.Meta))
    return use + next(filter(None, descriptions))


def _walk(annotation: Any) -> Iterator[Any]:
    yield annotation
    for each in get_args(annotation):
        yield from _walk(each)


def _check_count(items: Any, max_items: int) -> None:
    # Comes before any check of single items, because a body may hold millions of empty ones.
    if not isinstance(items, list):
        return
    items = cast("list[Any]", items)
    count = len(items)
    is_token_ids = count > 0 and isinstance(items[0], int)  # a single item
    if count == 0:
        raise InvalidRequest("'input' is an empty list. Send at least one item.", param="input")
    if is_token_ids and count > MAX_CHARACTERS:
        raise _too_many_tokens(count)
    if not is_token_ids and count > max_items:
        # Gateways take "array length" for a limit on items, as OpenAI words it, and halve a call.
        raise InvalidRequest(
            f"'input' has {count} items; the array length must be {max_items} or less. Send fewer "
            "at a time. Only this gateway's operator can allow more, with the setting max_items.",
            param="input",
        )


def _too_many_tokens(count: int) -> InvalidRequest:
    return InvalidRequest(
        f"'input' has {count} tokens, max {MAX_CHARACTERS}. Split it.", param="input"
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
    # A NUL may be in a text to embed but not in what is stored, compared and printed.
    if any("\0" in value for value in values):
        raise InvalidRequest(f"'{name}' holds a NUL character. Take it out.", param=name)


def _check_unique(body: bytes | bytearray, fields: Mapping[str, msgspec.Raw]) -> None:
    """Refuse a JSON object that has a field twice, because parsers differ in which one they take.

    Args:
        body: The object's JSON, which is valid.
        fields: The decoded object: the last value of each field, as JSON.

    Raises:
        InvalidRequest: A field is there twice.
    """
    if len(fields) > len(_DECODERS) + MAX_EXTRA:
        raise _too_many(len(fields))
    text = bytes(body)
    quotes = sum([bytes(value).count(b'"') for value in fields.values()], 2 * len(fields))
    if text.count(b'"') == quotes:
        return  # no room for the name of another field
    at, seen = 0, set[str]()
    while member := _NAME.match(text, at):
        name, at = msgspec.json.decode(member[1]), member.end()
        value = bytes(fields[name])
        if name in seen or not text.startswith(value, at):  # not its last value, so it comes again
            raise InvalidRequest(
                f"The field {quote_value(name)} is there twice. Send it once.", param=name
            )
        seen.add(name)
        at += len(value)


def _check_names(unknown: Iterable[str]) -> None:
    """Refuse an unknown field that is probably a mistyped name of one of ours."""
    for name in unknown:
        if field := suggest_field(name):
            raise InvalidRequest(
                f"There is no field {name!r}. Did you mean {field!r}? If your provider has a field "
                "of this name, send it inside 'extra_body'.",
                param=name,
            )


def _too_many(fields: int) -> InvalidRequest:
    return InvalidRequest(
        f"{fields} fields are too many: at most {MAX_EXTRA} may be for the provider. Take some out."
    )


def _check_extra(extra: Collection[str]) -> None:
    if len(extra) > MAX_EXTRA:
        raise _too_many(len(extra))
    for name in extra:
        if not 1 <= len(name) <= MAX_NAME_CHARACTERS:
            raise InvalidRequest(
                f"A field has a name of {len(name)} characters; it must have 1 to "
                f"{MAX_NAME_CHARACTERS}. Take it out."
            )
        if normalise_name(name) in PROTECTED:
            raise InvalidRequest(
                f"{name!r} is set by this gateway and cannot be sent to a provider. Take it out.",
                param=name,
            )
