"""The calls to deployments as they come and go: told to their health, to metrics and to the log."""

from collections.abc import Callable

from embedway.catalog.model import Served
from embedway.core.batch import Batch, Result
from embedway.core.provider_error import ProviderError
from embedway.health.health import Healths
from embedway.metering.billing import Tally
from embedway.sending.sender import Outcome

OnCall = Callable[[str, Served, ProviderError | None, float], None]
"""Told of each call: for which request, who was asked, the failure if any, and the seconds."""

OnOvercount = Callable[[str, Served, int, int], None]
"""Receives the request id, the deployment, the tokens it reported and the most that are billed."""

OnUnreadableUsage = Callable[[str, Served], None]
"""Receives the request id and the deployment whose reported tokens are no count."""


class Calls:
    """All calls of the process."""

    def __init__(
        self,
        *,
        healths: Healths,
        on_call: OnCall = lambda _request_id, _served, _error, _seconds: None,
        on_overcount: OnOvercount = lambda _request_id, _served, _reported, _billed: None,
        on_unreadable_usage: OnUnreadableUsage = lambda _request_id, _served: None,
    ) -> None:
        """Takes who is told."""
        self.now_s = healths.now_s
        """The clock that all of it goes by."""
        self._healths = healths
        self._on_call = on_call
        self._on_overcount = on_overcount
        self._on_unreadable_usage = on_unreadable_usage

    def began(self, served: Served, *, others: bool = False) -> None:
        """Told of a call before it goes out.

        Args:
            served: Who is asked.
            others: Whether somebody else could be asked instead.

        Raises:
            ProviderError: It asked to be left alone, or is, after failures.
        """
        health, now_s = self._healths.of(served), self.now_s()
        standing = health.standing(now_s)
        if standing == "limited" or (others and standing != "healthy"):
            kind = "rate_limit" if standing == "limited" else "overloaded"
            raise ProviderError(kind, billed="not sent", retry_after_s=health.wait_s(now_s))
        health.began(now_s)

    def ended(
        self,
        tally: Tally,
        batch: Batch,
        outcome: Outcome,
        seconds: float,
        *,
        request_id: str,
    ) -> None:
        """Records how a call ended that `began`.

        Args:
            tally: Of who was asked; the call is added to it, if it was sent.
            batch: It was asked for.
            outcome: How it ended.
            seconds: It took.
            request_id: Of the request that it was for.
        """
        served, tokens = tally.served, sum(batch.tokens)
        health = self._healths.of(served)
        match outcome:
            case "not sent":
                health.cancelled()
                return
            case "cancelled":
                tally.called(upstream_tokens=tokens, failed=True)
                health.cancelled()
                return
            case ProviderError():
                if outcome.was_sent:
                    billed = 0 if outcome.billed == "no" else tokens
                    tally.called(upstream_tokens=billed, failed=True)
                # Who cannot be called for want of credentials or an address is left alone too.
                error, rest_s = outcome, None
            case Result():
                error, rest_s = None, outcome.rest_s
                upstream_tokens, reported = tokens, outcome.tokens
                if reported is not None and reported != tokens:
                    if reported > batch.max_billed_tokens:
                        self._on_overcount(request_id, served, reported, batch.max_billed_tokens)
                    elif reported < 0:
                        self._on_unreadable_usage(request_id, served)
                    # What it reports is what it charges, unless no text has so many tokens.
                    upstream_tokens = outcome.tokens_up_to(batch.max_tokens) or tokens
                tally.called(upstream_tokens=upstream_tokens, failed=False)
        health.ended(error, tokens=tokens, seconds=seconds, now_s=self.now_s(), rest_s=rest_s)
        self._on_call(request_id, served, error, seconds)
