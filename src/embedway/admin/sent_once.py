"""Refuses a request that has a field or a parameter twice, or a parameter that does not exist.

The web framework takes the last of a field or parameter that is there twice. Whoever reads the
request before this gateway, such as a proxy that checks it, may take the first. The framework
ignores a parameter that it does not know: a list would be answered unfiltered.
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

from embedway.core.errors import InvalidRequest, quote_value
from embedway.ledger.query import METADATA

OURS = ("/v1/organization/", "/api/v1/llm/usage/")
"""The start of paths that no client of another API calls with parameters of its own."""


async def sent_once(request: Request) -> None:
    """Check a request, as a dependency of every route.

    Raises:
        InvalidRequest: A parameter of the query that is no list, or a field of any object in the
            JSON body is there twice; or a route of the admin API has no such parameter.
    """
    known = dict(_parameters(request.scope["route"].dependant))
    counts = Counter(name for name, _ in request.query_params.multi_items())
    for name in counts:
        prefix = METADATA if name.startswith(METADATA) else name
        if prefix not in known and request.url.path.startswith(OURS):
            near = difflib.get_close_matches(name, known, n=1)
            cure = f"Did you mean {quote_value(near[0])}?" if near else "Leave it out."
            raise InvalidRequest(
                f"There is no parameter {quote_value(name)} here. {cure}", param=name
            )
        counts[name] *= not known.get(prefix, name.endswith("[]"))
    refuse_repeated(counts)
    if body := await request.body():
        # What is no JSON at all is refused where it is decoded.
        with suppress(ValueError, RecursionError):
            json.loads(body, object_pairs_hook=_object, parse_int=str)


def _parameters(dependant: Dependant) -> Iterator[tuple[str, bool]]:
    """Each parameter of the query, and whether it is a list, which may be repeated."""
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


def _object(members: Iterable[tuple[str, Any]]) -> None:
    refuse_repeated(Counter(name for name, _ in members))


def refuse_repeated(counts: Counter[str]) -> None:
    """Refuse a name that is there more than once."""
    for name, count in counts.items():
        if count > 1:
            raise InvalidRequest(f"{quote_value(name)} is there twice. Send it once.", param=name)
