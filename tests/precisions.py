"""Which precisions this CPU has."""

from embedway.local.openvino import Precision, resolve_precision


def lacks_precision(precision: Precision) -> str:
    """Return why this CPU cannot compute in a precision; an empty string if it can."""
    try:
        resolve_precision(precision)
    except ValueError as error:
        return str(error)
    return ""
