"""A provider's failure: what kind it is, whether it may have been billed, and what clients hear.

Adapters turn each provider's errors into one of these kinds; what is tried again and what the
client is answered follows from the kind alone.
"""

import math
from typing import Literal

from embedway.core.errors import (
    ContextLengthExceeded,
    EmbedwayError,
    InvalidRequest,
    RateLimitExceeded,
    TokenRateLimitExceeded,
    UnknownModel,
    UpstreamAccountError,
    UpstreamError,
    UpstreamTimeout,
)

FailureKind = Literal[
    "request",  # it refuses what the client asked for
    "item_too_long",
    "item_failed",  # its model computes nothing for one item; others of the batch are well
    "batch_too_large",  # too many items or tokens for one call
    "dimensions",
    "model",  # it has no such model
    "credentials",  # it refuses the gateway's own key
    "quota",  # the gateway's account there is spent or blocked
    "rate_limit",
    "overloaded",
    "timeout",
    "unreachable",
    "failed",  # any other failure of its own
    "malformed",  # it answered 200, but not with the vectors asked for
]

Billable = Literal["not sent", "no", "maybe", "yes"]
"""Whether the provider may charge for the call: it was never called, it refused or was not reached,
nobody knows, it answered."""

TRANSIENT: frozenset[FailureKind] = frozenset(
    {"rate_limit", "overloaded", "timeout", "unreachable", "failed"}
)
"""Worth trying again."""
PROVIDER_KINDS: frozenset[FailureKind] = frozenset({"malformed", "credentials", "quota", "model"})
"""Not worth trying again there, but another deployment need not have it."""
ITEM_KINDS: frozenset[FailureKind] = frozenset({"request", "item_too_long", "item_failed"})
"""One item of a batch may be the cause."""


MESSAGES: dict[FailureKind, str] = {
    "request": "{provider} refuses the request{said}.{at_fault} Change it.",
    "item_too_long": "The input is too long for {model} at {provider}{said}.{at_fault} Shorten or "
    "split it, or set 'truncate'.",
    "item_failed": "{provider} cannot compute a vector for the input: {model} gives no numbers "
    "there.{at_fault} Change it, or choose another model.",
    "batch_too_large": "The input is too much for one call to {model} at {provider}{said}. Send "
    "fewer items; this gateway's operator can lower the limits it cuts at.",
    "dimensions": "{provider} does not offer these 'dimensions' of {model}{said}. Leave the field "
    "out, or choose another.",
    "model": "{provider} has no model {model!r}{said}. Choose another.",
    "credentials": "{provider} refuses this gateway's credentials. Tell its operator.",
    "quota": "This gateway's account at {provider} is spent or blocked. Tell its operator.",
    "rate_limit": "{provider} limits the rate of this gateway's requests. Try again later.",
    "overloaded": "{provider} is overloaded. Try again.",
    "timeout": "{provider} did not answer in time. Try again, with fewer items.",
    "unreachable": "{provider} cannot be reached. Try again.",
    "failed": "{provider} failed. Try again.",
    "malformed": "{provider} answered something other than what it was asked for{said}.",
}
UPSTREAM: dict[FailureKind, type[UpstreamError]] = {
    "credentials": UpstreamAccountError,
    "quota": UpstreamAccountError,
    "timeout": UpstreamTimeout,
}


class ProviderError(Exception):
    """One call to a provider failed."""

    def __init__(
        self,
        kind: FailureKind,
        reason: str = "",
        *,
        billed: Billable = "no",
        retry_after_s: float | None = None,
        of_tokens: bool = False,
        item: int | None = None,
        field: str = "",
    ) -> None:
        """Describes the failure.

        Args:
            kind: What failed.
            reason: In the provider's words, cleaned, or in ours; never a secret.
            billed: Whether the provider may charge for the call.
            retry_after_s: When the provider wants to be asked again.
            of_tokens: Whether the rate limit is one of tokens, not of requests.
            item: Index in the batch of the item at fault.
            field: The field of the call at fault, by the provider's name; empty if it names none.
        """
        super().__init__(kind)  # not the reason: it may be emptied, for what it gives away
        self.kind: FailureKind = kind
        self.reason = reason
        self.billed: Billable = billed
        self.retry_after_s = retry_after_s
        self.of_tokens = of_tokens
        self.item = item
        self.field = field
        self.param: str | None = None
        """The field of the client's request at fault, if the provider names one."""
        self.status: int | None = None
        """Of the reply, if there was one."""
        self.retry_immediately = False
        """Whether the next try may go out at once: with another key, which rests from nothing."""
        self.provider = ""
        """Whose failure it is, once that is known."""
        self.tried: list[tuple[str, FailureKind]] = []
        """The providers that failed one after the other, and how."""

    @property
    def was_sent(self) -> bool:
        """Whether the provider was called; if not, there is no call to count."""
        return self.billed != "not sent"

    @property
    def can_fail_over(self) -> bool:
        """Whether another deployment may be asked instead."""
        return self.kind in TRANSIENT or self.kind in PROVIDER_KINDS or self.kind == "item_failed"

    def combine(self, earlier: "ProviderError") -> "ProviderError":
        """What to tell of two deployments that failed one after the other, this one the last."""
        # That there is no more room says less than anything else.
        told = earlier if self.kind == "rate_limit" else self
        if self.kind == earlier.kind == "rate_limit":
            waits = [each.retry_after_s for each in (self, earlier)]
            told.retry_after_s = min((each for each in waits if each is not None), default=None)
        told.tried = earlier.tried + self.tried
        return told

    def client_error(self, *, model: str) -> EmbedwayError:
        """What the client is told, when nothing is left to try."""
        said = f": {self.reason.rstrip('.')}" if self.reason else ""
        param = self.param if self.item is None else f"input[{self.item}]"
        at_fault = f" {param!r} is at fault." if param else ""
        message = MESSAGES[self.kind].format(
            provider=self.provider, model=model, said=said, at_fault=at_fault
        )
        if len(self.tried) > 1:
            tried = ", ".join(f"{name} ({kind})" for name, kind in self.tried)
            message += f" Tried in turn: {tried}."
        match self.kind:
            case "request" | "item_failed":
                of_input = self.item is not None or self.kind == "item_failed"
                return InvalidRequest(message, param="input" if of_input else self.param)
            case "item_too_long" | "batch_too_large":
                return ContextLengthExceeded(message, param="input")
            case "dimensions":
                return InvalidRequest(message, param="dimensions")
            case "model":
                return UnknownModel(message, param="model")
            case "rate_limit":
                limited = TokenRateLimitExceeded if self.of_tokens else RateLimitExceeded
                return limited(message, retry_after_s=self.retry_after_s)
            case _:
                return UPSTREAM.get(self.kind, UpstreamError)(message, headers=self._headers())

    def _headers(self) -> dict[str, str]:
        wait_s = self.retry_after_s
        return {} if wait_s is None else {"retry-after": str(math.ceil(wait_s))}
