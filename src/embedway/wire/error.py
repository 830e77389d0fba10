"""The one place that turns an error into a body: four keys, always."""

import orjson

from embedway.core.errors import EmbedwayError
from embedway.core.redaction import redact


def encode_error(error: EmbedwayError) -> bytes:
    """The JSON body of `error`."""
    return orjson.dumps(
        {
            "error": {
                "message": redact(error.message),
                "type": error.type,
                "param": error.param and redact(error.param),
                "code": error.code,
            }
        }
    )
