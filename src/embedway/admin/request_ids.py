"""Gives every answer of the control plane the id under which it can be found."""

from fastapi import Request, Response

from embedway.core import ids

HEADER = "x-request-id"


def request_id(request: Request) -> str:
    """Return the request's id: the client's own, if it is well-formed, or a new one."""
    if not hasattr(request.state, "request_id"):
        request.state.request_id = ids.for_request(request.headers.get(HEADER))
    return request.state.request_id


# Everything that routes depend on is `async`: the framework would call it in a thread, which costs
# more than it does.
async def send_request_id(request: Request, response: Response) -> str:
    """Send the request's id with the answer, and return it. Every route depends on this."""
    response.headers[HEADER] = request_id(request)
    return response.headers[HEADER]
