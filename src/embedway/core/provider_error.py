"""Describes the failure of a call to a provider.

Adapters turn each provider's errors into one of these kinds. The kind alone decides whether the
call is retried and which error the client receives.
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
    "request",  # the provider refuses the client's request
    "item_too_long",
    "item_failed",  # the model returns no numbers for one item; the rest of the batch is fine
    "batch_too_large",  # too many items or tokens for one call
    "dimensions",
    "model",  # the provider has no such model
    "credentials",  # the provider refuses the gateway's own key
    "quota",  # the gateway's account is spent or blocked
    "rate_limit",
    "overloaded",
    "timeout",
    "unreachable",
    "failed",  # any other failure of the provider
    "malformed",  # the provider answered 200, but not with the requested vectors
]

Billable = Literal["not sent", "no", "maybe", "yes"]
"""Whether the provider may charge for the call.

`not sent`: it was never called. `no`: it refused the call or was not reached. `maybe`: unknown.
`yes`: it answered.
"""

TRANSIENT: frozenset[FailureKind] = frozenset(
    {"rate_limit", "overloaded", "timeout", "unreachable", "failed"}
)
"""The kinds worth a retry at the same deployment."""
PROVIDER_KINDS: frozenset[FailureKind] = frozenset({"malformed", "credentials", "quota", "model"})
"""The kinds not worth a retry at the same deployment, but worth a failover."""
ITEM_KINDS: frozenset[FailureKind] = frozenset({"request", "item_too_long", "item_failed"})
"""The kinds that one item of a batch may cause."""

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
        """Describe the failure.

        Args:
            kind: What failed.
            reason: The provider's words, cleaned, or the gateway's; never holds a secret.
            billed: Whether the provider may charge for the call.
            retry_after_s: How long the provider asks to wait, in seconds.
            of_tokens: Whether the rate limit is on tokens rather than requests.
            item: The index in the batch of the item at fault.
            field: The provider's name for the field at fault, if it names one.
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
        """The HTTP status of the reply, if there was one."""
        self.retry_immediately = False
        """Whether a retry need not wait, because it uses another key."""
        self.provider = ""
        """The provider that failed, once known."""
        self.tried: list[tuple[str, FailureKind]] = []
        """The providers that failed in turn, each with its kind of failure."""

    @property
    def was_sent(self) -> bool:
        """Whether the provider was called."""
        return self.billed != "not sent"

    @property
    def can_fail_over(self) -> bool:
        """Whether the request may go to another deployment instead."""
        return self.kind in TRANSIENT or self.kind in PROVIDER_KINDS or self.kind == "item_failed"

    def combine(self, earlier: "ProviderError") -> "ProviderError":
        """Return the error to report after `earlier` and then this one at another deployment."""
        # A rate limit says less than any other failure.
        combined = earlier if self.kind == "rate_limit" else self
        if self.kind == earlier.kind == "rate_limit":
            waits = [each.retry_after_s for each in (self, earlier)]
            combined.retry_after_s = min((each for each in waits if each is not None), default=None)
        combined.tried = earlier.tried + self.tried
        return combined

    def client_error(self, *, model: str) -> EmbedwayError:
        """Return the error that the client receives when no deployment is left to try."""
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
                wait_s = self.retry_after_s
                headers = {} if wait_s is None else {"retry-after": str(math.ceil(wait_s))}
                return UPSTREAM.get(self.kind, UpstreamError)(message, headers=headers)
