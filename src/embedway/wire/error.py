"""Encodes every error of the gateway, always with the same four fields."""

import orjson

from embedway.core.errors import EmbedwayError
from embedway.core.redaction import redact


def encode_error(error: EmbedwayError) -> bytes:
    """Return the JSON body for an error, with secrets redacted."""
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
