"""Refuses requests with repeated fields or parameters, or with unknown parameters.

The web framework takes the last value of a repeated field or parameter. A proxy that checks the
request before this gateway may take the first. The framework also ignores unknown parameters, so a
mistyped filter would return an unfiltered list.
"""

import difflib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any, get_origin

from fastapi import Request
from fastapi.dependencies.models import Dependant
from pydantic import BaseModel

from embedway.admin import files
from embedway.core.errors import InvalidRequest, quote_value
from embedway.ledger.query import METADATA

_STRICT_PREFIXES = ("/v1/organization/", "/api/v1/llm/usage/")
"""The paths that refuse unknown parameters. Clients of other APIs do not call them."""


async def check_request(request: Request) -> None:
    """Check a request. Every route depends on this.

    Raises:
        InvalidRequest: A query parameter that is not a list, or a field of any object in the
            JSON body, is repeated; or a route of the admin API does not have the parameter.
    """
    parameters = dict(_parameters(request.scope["route"].dependant))
    counts = Counter(name for name, _ in request.query_params.multi_items())
    for name in counts:
        prefix = METADATA if name.startswith(METADATA) else name
        if prefix not in parameters and request.url.path.startswith(_STRICT_PREFIXES):
            matches = difflib.get_close_matches(name, parameters, n=1)
            cure = f"Did you mean {quote_value(matches[0])}?" if matches else "Leave it out."
            raise InvalidRequest(
                f"There is no parameter {quote_value(name)} here. {cure}", param=name
            )
        counts[name] *= not parameters.get(prefix, name.endswith("[]"))
    refuse_repeated(counts)
    # An upload is read as it arrives, and its form checks its fields itself.
    if request.url.path != files.PATH and (body := await request.body()):
        # Invalid JSON is refused where it is decoded.
        with suppress(ValueError, RecursionError):
            json.loads(body, object_pairs_hook=_check_object, parse_int=str)


def _parameters(dependant: Dependant) -> Iterator[tuple[str, bool]]:
    """Yield each query parameter, and whether it is a list, which may be repeated."""
    for each in dependant.query_params:
        model = each.field_info.annotation
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            yield each.alias, each.alias.endswith("[]")
            continue
        for name, field in model.model_fields.items():
            is_list = get_origin(field.annotation) is list
            yield from ((name, is_list), (f"{name}[]", True))[: 1 + is_list]
        if model.model_config.get("extra") == "allow":
            yield METADATA, True
    for each in dependant.dependencies:
        yield from _parameters(each)


def _check_object(members: Iterable[tuple[str, Any]]) -> None:
    refuse_repeated(Counter(name for name, _ in members))


def refuse_repeated(counts: Counter[str]) -> None:
    """Raise `InvalidRequest` if a name occurs more than once."""
    for name, count in counts.items():
        if count > 1:
            raise InvalidRequest(f"{quote_value(name)} is there twice. Send it once.", param=name)
