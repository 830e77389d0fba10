"""Keeps providers open, with what they learnt, as long as a configuration uses them."""

import asyncio
from collections.abc import Callable

import msgspec

from embedway.providers.provider import Provider
from embedway.providers.provider_config import ProviderConfig


class _Entry(msgspec.Struct):
    config: ProviderConfig
    provider: Provider
    users: int = 1


class ProviderPool:
    """The open providers of a process. Equal configurations share one."""

    def __init__(self) -> None:
        self._entries: list[_Entry] = []

    async def take(
        self, config: ProviderConfig, open_provider: Callable[[], Provider | None]
    ) -> Provider | None:
        """Return the provider that is open with this configuration, or open it in a thread.

        Call `release` for each provider that this returned. Takes must not run at the same time.

        Args:
            config: The provider's configuration; its models make no difference.
            open_provider: Opens it; returns None if it is to be left out.
        """
        for entry in self._entries:
            if entry.config.opens_like(config):
                entry.users += 1
                return entry.provider
        provider = await asyncio.to_thread(open_provider)
        if provider is not None:
            self._entries.append(_Entry(config, provider))
        return provider

    async def release(self, provider: Provider) -> None:
        """Close a provider, unless another configuration uses it too."""
        entry = next(each for each in self._entries if each.provider is provider)
        entry.users -= 1
        if not entry.users:
            self._entries.remove(entry)
            await provider.aclose()
