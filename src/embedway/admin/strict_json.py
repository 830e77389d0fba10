"""Decodes the JSON body of a request strictly; of what is wrong it shows the place, no value."""

import re
from typing import TypeVar

import msgspec

from embedway.core.errors import InvalidRequest

_PATH = re.compile(r"^(?P<reason>.*?)(?: - at `\$\.?(?P<path>.*)`)?$", re.DOTALL)
_NAMED = re.compile(r"missing required field `(\w+)`")
_STEP = re.compile(r"[.\[]")

Body = TypeVar("Body")


def decode(body: bytes, kind: type[Body]) -> Body:
    """The JSON object in `body`.

    Args:
        body: As it came.
        kind: A msgspec struct of its fields.

    Raises:
        InvalidRequest: It is no such object; `param` names the field. No value is in the message,
            for it may be a secret.
    """
    try:
        body.decode()  # also what is not decoded below
        return msgspec.json.decode(body, type=kind)
    except UnicodeDecodeError:
        raise InvalidRequest("The body is not valid UTF-8. Encode it as UTF-8.") from None
    except RecursionError:
        raise InvalidRequest("The body is nested too deeply. Send a flat JSON object.") from None
    except msgspec.ValidationError as error:
        raise _explained(str(error)) from None
    except msgspec.DecodeError as error:
        reason = str(error).removeprefix("JSON is malformed: ")
        raise InvalidRequest(f"The body is not valid JSON: {reason}. Correct it.") from None


def _explained(error: str) -> InvalidRequest:
    match = _PATH.match(error)
    reason, path = match.group("reason", "path") if match else (error, None)
    if path:
        param = _STEP.split(path)[0]
        return InvalidRequest(f"'{path}': {reason}. Correct it.", param=param or None)
    named = _NAMED.search(reason)
    return InvalidRequest(
        f"The body cannot be used: {reason}. Correct it.", param=named.group(1) if named else None
    )
