"""Builds the space memberships and the lifetimes of all deployments from the settings."""

from collections.abc import Callable, Sequence

from embedway.catalog.catalog import Catalog
from embedway.catalog.lifetimes import ModelLifetimes
from embedway.config.settings import Settings
from embedway.core import clock
from embedway.providers.provider_config import ProviderConfig, fingerprinter
from embedway.spaces.membership import SpaceMemberships


def build_memberships(
    settings: Settings,
    models: Catalog,
    providers: Sequence[ProviderConfig],
    *,
    now_ms: Callable[[], int] = clock.now_ms,
) -> tuple[SpaceMemberships, ModelLifetimes]:
    """Build the space memberships and the lifetimes of the deployments of `models`.

    The memberships know which deployments are retired today; `ModelLifetimes.today` updates them.
    """
    spaces = SpaceMemberships(
        policy=models.policy,
        deployments=models.deployments(),
        enabled=settings.canaries,
        interval_s=settings.canary_interval_s,
        fingerprint=fingerprinter(providers),
        now_ms=now_ms,
    )
    lifetimes = ModelLifetimes(models.deployments(), now_ms=now_ms, on_retired=spaces.retire)
    lifetimes.today()
    return spaces, lifetimes
