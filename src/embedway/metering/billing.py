"""What a request is billed: from what was asked and answered to the lines of the ledger."""

import time
from collections.abc import Sequence
from decimal import Decimal

import msgspec

from embedway.catalog.model import Served
from embedway.core import ids, money
from embedway.core.errors import UpstreamFailed
from embedway.core.keys import Caller
from embedway.core.money import NanoUsd
from embedway.core.request import EmbedRequest
from embedway.core.usage import ANSWERED, UsageLine

PROBE = "probe"
"""In the log and the ledger, where a request is named."""


class Tally(msgspec.Struct, kw_only=True):
    """What one deployment was asked for a request, and what came of it."""

    served: Served
    items: int = 0
    """Answered."""
    tokens: int = 0
    """Answered, as they are charged."""
    exact: bool = True
    """Whether these are as counted, by us or by the provider, not estimated."""
    calls: int = 0
    failed_calls: int = 0
    upstream_tokens: int = 0
    """That the provider may charge."""

    def called(self, *, upstream_tokens: int, failed: bool) -> None:
        """Adds a call that came back."""
        self.calls += 1
        self.failed_calls += failed
        self.upstream_tokens += upstream_tokens


class Bill(msgspec.Struct, frozen=True, kw_only=True):
    """Who and what the lines of one request have in common."""

    request: EmbedRequest
    caller: Caller
    id: str
    request_id: str
    at_ms: int
    started_s: float
    """On `time.perf_counter`'s clock."""

    def lines(self, tallies: Sequence[Tally], *, status: int) -> list[UsageLine]:
        """A line for each deployment that was asked; one all the same where none was.

        Only with status 200 is anything charged. Costs are at the prices of now.
        """
        asked = [each for each in tallies if each.calls]
        # The line that counts as the request is that of who answered, if anybody did.
        asked.sort(key=lambda each: not each.items)
        latency_us = round((time.perf_counter() - self.started_s) * 1_000_000)
        if not asked:
            return [self._line(0, None, status=status, latency_us=latency_us)]
        return [
            self._line(line, each, status=status, latency_us=latency_us)
            for line, each in enumerate(asked)
        ]

    def _line(self, line: int, asked: Tally | None, *, status: int, latency_us: int) -> UsageLine:
        request, caller = self.request, self.caller
        answered = asked if status == ANSWERED else None
        whole = len(request.items) if line == 0 else 0
        return UsageLine(
            id=self.id,
            line=line,
            at_ms=self.at_ms,
            request_id=self.request_id,
            project_id=caller.project.id if caller.project else "",
            key_id=caller.key_id,
            on_behalf_of=caller.on_behalf_of,
            user=request.user,
            metadata=request.metadata,
            model=_model(asked.served, answered=answered is not None) if asked else "",
            asked=request.model,
            provider=asked.served.provider if asked else "",
            items=answered.items if answered else whole,
            tokens=answered.tokens if answered else 0,
            estimated=answered is not None and not answered.exact,
            priced=asked is None or asked.served.deployment.price_per_mtok_usd is not None,
            cost_nano_usd=charge(answered.served, answered.tokens) if answered else 0,
            upstream_cost_nano_usd=charge(asked.served, asked.upstream_tokens) if asked else 0,
            calls=asked.calls if asked else 0,
            failed_calls=asked.failed_calls if asked else 0,
            latency_us=latency_us,
            status=status,
        )


def _model(served: Served, *, answered: bool) -> str:
    known = answered or served.model.declared
    return served.model.id if known else served.label


def probe_line(tally: Tally, *, at_ms: int, latency_s: float, failed: bool) -> UsageLine:
    """The line of one probe of a deployment: nobody is charged, but its provider may charge."""
    return UsageLine(
        id=ids.new(PROBE),
        at_ms=at_ms,
        request_id=PROBE,
        project_id="",
        key_id="",
        on_behalf_of=None,
        user=None,
        metadata={},
        model=tally.served.model.id,
        provider=tally.served.provider,
        items=0,
        tokens=0,
        cost_nano_usd=0,
        upstream_cost_nano_usd=charge(tally.served, tally.upstream_tokens),
        priced=tally.served.deployment.price_per_mtok_usd is not None,
        calls=tally.calls,
        failed_calls=tally.failed_calls,
        latency_us=round(latency_s * 1_000_000),
        status=UpstreamFailed.status if failed else ANSWERED,
    )


def charge(served: Served, tokens: int) -> NanoUsd:
    """What so many tokens cost there now; 0 where no price is known."""
    return money.cost(tokens, price_per_mtok=served.deployment.price_per_mtok_usd or Decimal(0))
