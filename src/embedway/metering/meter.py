"""Reserves what a request will take of limits and budgets, and settles what it took."""

from collections.abc import Sequence

from embedway.budgets.enforcer import BudgetEnforcer
from embedway.core.keys import Caller
from embedway.core.limit import MAX_AMOUNT
from embedway.core.money import NanoUsd
from embedway.core.request import EmbedRequest
from embedway.metering.account import Account, AccountFinder
from embedway.metering.estimate import count_tokens, max_cost
from embedway.ratelimits.limiter import LimitReservation, RateLimiter
from embedway.ratelimits.status import LimitStatus
from embedway.sending.attempt import Attempt

MOST_MARKS = 8
"""Tokens that a model puts around a text."""
MOST_BYTES = 4
"""Of a character."""
MOST_TOKENS_PER_BYTE = 5
"""The most tokens in a byte of a body, where each item takes three bytes beside its text."""


class Reservation:
    """Limits and budgets set aside for one request. Settling twice does nothing."""

    __slots__ = ("_account", "_budgets", "_cost_nano_usd", "_counted", "_is_open", "_limiter")

    def __init__(
        self,
        account: Account,
        *,
        limiter: RateLimiter,
        budgets: BudgetEnforcer,
        counted: LimitReservation | None,
        cost_nano_usd: NanoUsd,
    ) -> None:
        self._account = account
        self._limiter = limiter
        self._budgets = budgets
        self._counted = counted
        self._cost_nano_usd = cost_nano_usd
        self._is_open = True

    @property
    def limit_statuses(self) -> Sequence[LimitStatus]:
        """The state of each rate limit after counting this request."""
        return self._counted.statuses if self._counted else ()

    def settle(self, *, tokens: int, cost_nano_usd: NanoUsd) -> None:
        """Charge what was used and give back the rest; what is charged is in the ledger by now."""
        if not self._is_open:
            return
        self._is_open = False
        owed = self._account.budgets
        if owed:
            self._budgets.settle(
                owed, reserved_nano_usd=self._cost_nano_usd, spent_nano_usd=cost_nano_usd
            )
        if self._counted and tokens != self._counted.tokens:
            self._limiter.settle(self._counted, tokens=tokens)

    def release(self) -> None:
        """Give everything back."""
        self.settle(tokens=0, cost_nano_usd=0)


class Meter:
    """Counts requests against the limits and budgets that they are subject to."""

    def __init__(
        self, *, accounts: AccountFinder, limiter: RateLimiter, budgets: BudgetEnforcer
    ) -> None:
        self._accounts = accounts
        self._limiter = limiter
        self._budgets = budgets

    async def admit(self, caller: Caller, *, body_bytes: int | None) -> Account:
        """Find what a caller's requests count against; refuse one before its body is read.

        Args:
            caller: Who sends the request.
            body_bytes: The length of its body, if that is known.

        Raises:
            Forbidden: The end user is blocked.
            RateLimitExceeded: A limit has no room for any request.
            StorageUnavailable: The limits cannot be looked up.
        """
        account = await self._accounts.find(caller, caller.on_behalf_of)
        if account.limit_keys:
            at_most = MAX_AMOUNT if body_bytes is None else MOST_TOKENS_PER_BYTE * body_bytes
            self._limiter.check(account.limit_keys, tokens=1, max_tokens=at_most)
        return account

    async def account(self, request: EmbedRequest, caller: Caller, admitted: Account) -> Account:
        """Find what a request counts against; refuse it at once if a limit is known to be full.

        Args:
            request: The request.
            caller: Who sent it.
            admitted: What `admit` found. It is looked up anew only if the request names an end
                user.

        Raises:
            Forbidden: The end user is blocked.
            RateLimitExceeded: A limit has no room, as is known before any work is done for it.
            StorageUnavailable: The limits cannot be looked up.
        """
        account = admitted
        if request.user and not caller.on_behalf_of:
            account = await self._accounts.find(caller, request.user)
        if account.limit_keys:
            # Each item has a token at least.
            self._limiter.check(
                account.limit_keys, tokens=len(request.items), max_tokens=_at_most(request)
            )
        return account

    async def count(self, account: Account) -> None:
        """Count one request that uses no tokens and no money.

        Raises:
            RateLimitExceeded: A limit of requests has no room for it.
        """
        if account.limit_keys:
            await self._limiter.reserve(account.limit_keys, tokens=0)

    async def reserve(
        self, account: Account, attempts: Sequence[Attempt], *, received_ms: int
    ) -> Reservation:
        """Take a request out of all limits and budgets, or out of none.

        It is reserved with the tokens that the first deployment that accepts it counts, and with
        the most that it can be charged.

        Args:
            account: What it counts against.
            attempts: The deployments that it may be sent to.
            received_ms: When it had been read.

        Raises:
            RateLimitExceeded: A limit has no room for it.
            BudgetExceeded: A budget has not so much left.
            InvalidRequest: No deployment accepts it.
            ServiceOverloaded: Too much is waiting to be counted.
            StorageUnavailable: What is left of a budget cannot be known.
        """
        owed, cost_nano_usd = account.budgets, 0
        if any(each.deployment.spec.price_per_mtok_usd for each in attempts):
            self._budgets.check(owed)
        tokens = await count_tokens(attempts)
        if owed:
            cost_nano_usd = await max_cost(attempts)
            await self._budgets.reserve(owed, cost_nano_usd=cost_nano_usd, at_ms=received_ms)
        counted = None
        if account.limit_keys:
            try:
                counted = await self._limiter.reserve(account.limit_keys, tokens=tokens)
            except BaseException:
                self._budgets.settle(owed, reserved_nano_usd=cost_nano_usd, spent_nano_usd=0)
                raise
        return Reservation(
            account,
            limiter=self._limiter,
            budgets=self._budgets,
            counted=counted,
            cost_nano_usd=cost_nano_usd,
        )


def _at_most(request: EmbedRequest) -> int:
    """Tokens, before anything is counted: each is of a byte at least, but for a few marks."""
    return sum(
        MOST_MARKS + len(item) * (MOST_BYTES if isinstance(item, str) and not item.isascii() else 1)
        for item in request.items
    )
