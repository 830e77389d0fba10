"""The four outcomes of a call to a deployment."""

from collections.abc import Callable

import msgspec

from embedway.catalog.deployment import Deployment
from embedway.core.batch import BatchResult
from embedway.core.errors import EmbedwayError
from embedway.core.provider_error import ProviderError


class Success(msgspec.Struct, frozen=True):
    """The deployment answered with the vectors it was asked for."""

    result: BatchResult


class Failure(msgspec.Struct, frozen=True):
    """The deployment failed; it may bill for the call."""

    error: ProviderError


class NotSent(msgspec.Struct, frozen=True):
    """Nothing was sent. It is never billed and does not count as a failure of the deployment."""

    error: ProviderError | EmbedwayError


class Cancellation(msgspec.Struct, frozen=True):
    """The caller gave up the call. It counts neither as success nor as failure."""


Outcome = Success | Failure | NotSent | Cancellation
OnStart = Callable[[], None]
"""Is called when a call begins, in the task that makes it."""
OnOutcome = Callable[[str, Deployment, Outcome, float], None]
"""Receives the request id, the deployment, how the call ended, and how many seconds it took."""
OnOvercount = Callable[[str, Deployment, int, int], None]
"""Receives the request id, the deployment, the tokens it reported and the most that are billed."""
OnUnreadableUsage = Callable[[str, Deployment], None]
"""Receives the request id and the deployment that reported an impossible number of tokens."""


class CallEvents(msgspec.Struct, frozen=True, kw_only=True):
    """The observers of calls."""

    on_start: OnStart = lambda: None
    on_outcome: OnOutcome = lambda _request_id, _deployment, _outcome, _seconds: None
    on_overcount: OnOvercount = lambda _request_id, _deployment, _reported, _billed: None
    on_unreadable_usage: OnUnreadableUsage = lambda _request_id, _deployment: None
