"""Refuses a request that has a field or a parameter twice.

The web framework takes the last one. Whoever reads the request before this gateway, such as a proxy
that checks it, may take the first.
"""

import json
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from fastapi import Request

from embedway.core.errors import InvalidRequest, shown

USAGE = ("/usage/embeddings", "/usage/refusals", "/organization/costs")
"""Paths end so whose parameters may be lists without a bracket; `usage_parameters` checks those."""


async def sent_once(request: Request) -> None:
    """Check a request, as a dependency of every route.

    Raises:
        InvalidRequest: A parameter of the query, unless its name ends in `[]`, or a field of any
            object in the JSON body is there twice.
    """
    if not request.url.path.endswith(USAGE):
        names = (name for name, _ in request.query_params.multi_items())
        _check(name for name in names if not name.endswith("[]"))
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
