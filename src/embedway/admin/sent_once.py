"""Refuses a request that has a field or a parameter twice, or a parameter that does not exist.

Of what is there twice the web framework takes the last one. Whoever reads the request before this
gateway, such as a proxy that checks it, may take the first. A parameter that it does not know it
ignores: a list would be answered unfiltered.
"""

import difflib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

from fastapi import Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from embedway.core.errors import InvalidRequest, shown

USAGE = ("/usage/embeddings", "/usage/refusals", "/organization/costs")
"""The ends of paths whose parameters `usage_parameters` checks."""
ADMIN = "/v1/organization/"
"""The start of paths that no client of another API calls with parameters of its own."""


async def sent_once(request: Request) -> None:
    """Check a request, as a dependency of every route.

    Raises:
        InvalidRequest: A parameter of the query, unless its name ends in `[]`, or a field of any
            object in the JSON body is there twice; or a route of the admin API has no such
            parameter.
    """
    path = request.url.path
    if not path.endswith(USAGE):
        names = [name for name, _ in request.query_params.multi_items()]
        _check(name for name in names if not name.endswith("[]"))
        if path.startswith(ADMIN):
            _check_known(names, request.scope["route"])
    if body := await request.body():
        # What is no JSON at all is refused where it is decoded.
        with suppress(ValueError, RecursionError):
            json.loads(body, object_pairs_hook=_object, parse_int=str)


def _object(members: list[tuple[str, Any]]) -> None:
    _check(name for name, _ in members)


def _check(names: Iterable[str]) -> None:
    for name, count in Counter(names).items():
        if count > 1:
            raise InvalidRequest(f"{shown(name)} is there twice. Send it once.", param=name)


def _parameters(dependant: Dependant) -> Iterator[str]:
    yield from (each.alias for each in dependant.query_params)
    for each in dependant.dependencies:
        yield from _parameters(each)


def _check_known(names: Iterable[str], route: APIRoute) -> None:
    known = list(_parameters(route.dependant))
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            cure = f"Did you mean {shown(near[0])}?" if near else "Leave it out."
            raise InvalidRequest(f"There is no parameter {shown(name)} here. {cure}", param=name)
