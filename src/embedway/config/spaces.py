"""What is proven of vector spaces, as the settings want it: the one way to make it."""

from collections.abc import Callable, Sequence

from embedway.catalog.catalog import Catalog
from embedway.catalog.lifetimes import Lifetimes
from embedway.config.settings import Settings
from embedway.core import clock
from embedway.providers.declared import Declared, fingerprints
from embedway.routing.spaces import Spaces


def spaces_of(
    settings: Settings,
    models: Catalog,
    providers: Sequence[Declared],
    *,
    now_ms: Callable[[], int] = clock.now_ms,
) -> Spaces:
    """What is known of the deployments of `models`: nothing but which are retired today."""
    spaces = Spaces(
        policy=models.policy,
        deployments=models.deployments(),
        enabled=settings.canaries,
        interval_s=settings.canary_interval_s,
        fingerprint=fingerprints(providers),
        now_ms=now_ms,
    )
    lifetimes_of(models, spaces)
    return spaces


def lifetimes_of(models: Catalog, spaces: Spaces) -> Lifetimes:
    """The lifetimes of all deployments; `spaces` is told what retires, today and on later days."""
    lifetimes = Lifetimes(models.deployments(), now_ms=spaces.now_ms, on_retired=spaces.retire)
    lifetimes.today()
    return lifetimes
