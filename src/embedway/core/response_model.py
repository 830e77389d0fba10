"""The base of all JSON objects that the control plane answers with."""

from pydantic import BaseModel


class ResponseModel(
    BaseModel, json_schema_serialization_defaults_required=True, use_attribute_docstrings=True
):
    """A JSON object of a response.

    Its schema describes each field by the docstring below it, and requires them all, because a
    response has them all.
    """
