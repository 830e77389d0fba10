"""Reserves limits and budgets for a request, and settles what it used."""

from collections.abc import Sequence

from embedway.budgets.enforcer import BudgetEnforcer
from embedway.core.keys import Caller
from embedway.core.limit import MAX_AMOUNT
from embedway.core.money import NanoUsd
from embedway.core.request import EmbedRequest
from embedway.metering.account import Account, AccountFinder
from embedway.metering.estimate import count_tokens, max_cost
from embedway.ratelimits.limiter import LimitReservation, LimitStatus, RateLimiter
from embedway.sending.attempt import Attempt

MAX_SPECIAL_TOKENS = 8
"""The most tokens that a model adds around a text."""
MAX_BYTES_PER_CHARACTER = 4
"""The longest UTF-8 encoding of a character."""
MAX_TOKENS_PER_BYTE = 5
"""The most tokens per byte of a body, in which each item takes three bytes besides its text."""


class Reservation:
    """Limits and budgets set aside for one request. Settling twice does nothing."""

    __slots__ = ("_account", "_budgets", "_cost_nano_usd", "_is_open", "_limiter", "_limits")

    def __init__(
        self,
        account: Account,
        *,
        limiter: RateLimiter,
        budgets: BudgetEnforcer,
        limits: LimitReservation | None,
        cost_nano_usd: NanoUsd,
    ) -> None:
        self._account = account
        self._limiter = limiter
        self._budgets = budgets
        self._limits = limits
        self._cost_nano_usd = cost_nano_usd
        self._is_open = True

    @property
    def limit_statuses(self) -> Sequence[LimitStatus]:
        """The state of each rate limit after counting this request."""
        return self._limits.statuses if self._limits else ()

    def settle(self, *, tokens: int, cost_nano_usd: NanoUsd) -> None:
        """Charge what was used, which the ledger has recorded, and give back the rest."""
        if not self._is_open:
            return
        self._is_open = False
        budgets = self._account.budgets
        if budgets:
            self._budgets.settle(
                budgets, reserved_nano_usd=self._cost_nano_usd, spent_nano_usd=cost_nano_usd
            )
        if self._limits and tokens != self._limits.tokens:
            self._limiter.settle(self._limits, tokens=tokens)

    def release(self) -> None:
        """Give everything back."""
        self.settle(tokens=0, cost_nano_usd=0)


class Meter:
    """Counts requests against limits and budgets; one for the process."""

    def __init__(
        self, *, accounts: AccountFinder, limiter: RateLimiter, budgets: BudgetEnforcer
    ) -> None:
        self._accounts = accounts
        self._limiter = limiter
        self._budgets = budgets

    async def admit(self, caller: Caller, *, body_bytes: int | None) -> Account:
        """Find the account of a caller, and refuse its request early if a limit is full.

        Args:
            caller: The sender of the request.
            body_bytes: The length of its body, if known.

        Raises:
            Forbidden: The end user is blocked.
            RateLimitExceeded: A limit has no room for any request.
            StorageUnavailable: The limits cannot be looked up.
        """
        account = await self._accounts.find(caller, caller.on_behalf_of)
        if account.limit_keys:
            max_tokens = MAX_AMOUNT if body_bytes is None else MAX_TOKENS_PER_BYTE * body_bytes
            self._limiter.check(account.limit_keys, tokens=1, max_tokens=max_tokens)
        return account

    async def account(self, request: EmbedRequest, caller: Caller, admitted: Account) -> Account:
        """Find the account of a request, and refuse it early if a limit is known to be full.

        Args:
            request: The request.
            caller: Its sender.
            admitted: The account that `admit` returned. It is looked up again only if the request
                names an end user.

        Raises:
            Forbidden: The end user is blocked.
            RateLimitExceeded: A limit has no room.
            StorageUnavailable: The limits cannot be looked up.
        """
        account = admitted
        if request.user and not caller.on_behalf_of:
            account = await self._accounts.find(caller, request.user)
        if account.limit_keys:
            # Each item has at least one token.
            self._limiter.check(
                account.limit_keys, tokens=len(request.items), max_tokens=_max_tokens(request)
            )
        return account

    async def count(self, account: Account) -> None:
        """Count one request without tokens or cost.

        Raises:
            RateLimitExceeded: A request limit has no room.
        """
        if account.limit_keys:
            await self._limiter.reserve(account.limit_keys, tokens=0)

    async def reserve(
        self, account: Account, attempts: Sequence[Attempt], *, received_ms: int
    ) -> Reservation:
        """Reserve a request's tokens and maximum cost in all its limits and budgets, or in none.

        Args:
            account: The limits and budgets.
            attempts: The deployments that the request may be sent to.
            received_ms: When the request had been read, in ms since the epoch.

        Raises:
            RateLimitExceeded: A limit has no room.
            BudgetExceeded: A budget has too little left.
            InvalidRequest: No deployment accepts the request.
            ServiceOverloaded: Too much is waiting to be counted.
            StorageUnavailable: The budgets cannot be read.
        """
        budgets, cost_nano_usd = account.budgets, 0
        if any(each.deployment.spec.price_per_mtok_usd for each in attempts):
            self._budgets.check(budgets)
        tokens = await count_tokens(attempts)
        if budgets:
            cost_nano_usd = await max_cost(attempts)
            await self._budgets.reserve(budgets, cost_nano_usd=cost_nano_usd, at_ms=received_ms)
        limits = None
        if account.limit_keys:
            try:
                limits = await self._limiter.reserve(account.limit_keys, tokens=tokens)
            except BaseException:
                self._budgets.settle(budgets, reserved_nano_usd=cost_nano_usd, spent_nano_usd=0)
                raise
        return Reservation(
            account,
            limiter=self._limiter,
            budgets=self._budgets,
            limits=limits,
            cost_nano_usd=cost_nano_usd,
        )


def _max_tokens(request: EmbedRequest) -> int:
    """Return an upper bound: each token but the special ones takes at least one byte."""
    return sum(
        MAX_SPECIAL_TOKENS
        + len(item)
        * (MAX_BYTES_PER_CHARACTER if isinstance(item, str) and not item.isascii() else 1)
        for item in request.items
    )
