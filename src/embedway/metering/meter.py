"""Reserves what a request will take of limits and budgets, and settles what it took."""

import msgspec

from embedway.core.keys import Caller
from embedway.core.limits import MAX_AMOUNT, Standing
from embedway.core.money import NanoUsd
from embedway.core.request import EmbedRequest
from embedway.metering.account import Account, Accounts
from embedway.metering.budgets import Budgets
from embedway.ports.limiter import Limiter, Reservation

MOST_MARKS = 8
"""Tokens that a model puts around a text."""
MOST_BYTES = 4
"""Of a character."""
MOST_TOKENS_PER_BYTE = 5
"""The most tokens in a byte of a body, where each item takes three bytes beside its text."""


class Reserved(msgspec.Struct, frozen=True, kw_only=True):
    """What is reserved for one request."""

    account: Account
    reservation: Reservation | None
    cost_nano_usd: NanoUsd

    @property
    def standings(self) -> tuple[Standing, ...]:
        """Of each limit, this request counted."""
        return tuple(self.reservation.standings) if self.reservation else ()


class Meter:
    """Counts requests against the limits and budgets that they are subject to."""

    def __init__(self, *, accounts: Accounts, limiter: Limiter, budgets: Budgets) -> None:
        """Args name what it needs."""
        self._accounts = accounts
        self._limiter = limiter
        self._budgets = budgets

    async def check_limits(self, caller: Caller, *, body_bytes: int | None) -> None:
        """Refuse a request of `caller` before its body is read, if a limit has no room for any.

        Args:
            caller: Who sends it.
            body_bytes: The length of its body, if that is known.

        Raises:
            Forbidden: The end user is blocked.
            RateLimited: A limit has no room.
            StorageUnavailable: The limits cannot be looked up.
        """
        account = await self._accounts.of(caller, caller.on_behalf_of)
        if account.meters:
            at_most = MAX_AMOUNT if body_bytes is None else MOST_TOKENS_PER_BYTE * body_bytes
            self._limiter.check(account.meters, tokens=1, at_most=at_most)

    async def account(self, request: EmbedRequest, caller: Caller) -> Account:
        """What `request` is counted against.

        Raises:
            Forbidden: The end user is blocked.
            RateLimited: It would be refused, as is known before any work is done for it.
            StorageUnavailable: It cannot be known.
        """
        account = await self._accounts.of(caller, caller.on_behalf_of or request.user)
        if account.meters:
            # Each item has a token at least.
            self._limiter.check(
                account.meters, tokens=len(request.items), at_most=_at_most(request)
            )
        return account

    async def count(self, account: Account) -> None:
        """Count one request that uses no tokens and no money.

        Raises:
            RateLimited: A limit of requests has no room for it.
        """
        if account.meters:
            await self._limiter.reserve(account.meters, tokens=0)

    def check(self, account: Account) -> None:
        """Refuses a request that costs anything, if that is known before its tokens are counted.

        Raises:
            BudgetSpent: A budget has nothing left.
        """
        self._budgets.check(account.budgets)

    async def reserve(
        self, account: Account, *, tokens: int, cost_nano_usd: NanoUsd, at_ms: int
    ) -> Reserved:
        """Takes a request that was read at `at_ms` out of all limits and budgets, or out of none.

        Raises:
            RateLimited: A limit has no room for it.
            BudgetSpent: A budget has not so much left.
            StorageUnavailable: What is left of a budget cannot be known.
        """
        if account.budgets:
            await self._budgets.reserve(account.budgets, cost_nano_usd=cost_nano_usd, at_ms=at_ms)
        reservation = None
        if account.meters:
            try:
                reservation = await self._limiter.reserve(account.meters, tokens=tokens)
            except BaseException:
                self._budgets.settle(
                    account.budgets, reserved_nano_usd=cost_nano_usd, spent_nano_usd=0
                )
                raise
        return Reserved(account=account, reservation=reservation, cost_nano_usd=cost_nano_usd)

    async def settle(
        self, reserved: Reserved, *, tokens: int = 0, cost_nano_usd: NanoUsd = 0
    ) -> None:
        """Puts back what was reserved and not taken; what is charged is in the ledger by now."""
        account = reserved.account
        if account.budgets:
            self._budgets.settle(
                account.budgets,
                reserved_nano_usd=reserved.cost_nano_usd,
                spent_nano_usd=cost_nano_usd,
            )
        if reserved.reservation and tokens != reserved.reservation.tokens:
            await self._limiter.settle(reserved.reservation, tokens=tokens)


def _at_most(request: EmbedRequest) -> int:
    """Tokens, before anything is counted: each is of a byte at least, but for a few marks."""
    return sum(
        MOST_MARKS + len(item) * (MOST_BYTES if isinstance(item, str) and not item.isascii() else 1)
        for item in request.items
    )
