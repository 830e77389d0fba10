"""The one place that turns an error into a body: four keys, always."""

import orjson

from embedway.core.credentials import hidden
from embedway.core.errors import EmbedwayError


def body(error: EmbedwayError) -> bytes:
    """The JSON body of `error`."""
    return orjson.dumps(
        {
            "error": {
                "message": hidden(error.message),
                "type": error.type,
                "param": error.param and hidden(error.param),
                "code": error.code,
            }
        }
    )
