"""The one place that turns an error into a body: four keys, always."""

import orjson

from embedway.core.errors import EmbedwayError
from embedway.core.redaction import hidden


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
