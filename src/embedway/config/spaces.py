"""Makes the spaces and lifetimes of all deployments, as the settings say."""

from collections.abc import Callable, Sequence

from embedway.catalog.catalog import Catalog
from embedway.catalog.lifetimes import Lifetimes
from embedway.config.settings import Settings
from embedway.core import clock
from embedway.providers.provider_config import Declared, fingerprints
from embedway.spaces.membership import Spaces


def spaces_of(
    settings: Settings,
    models: Catalog,
    providers: Sequence[Declared],
    *,
    now_ms: Callable[[], int] = clock.now_ms,
) -> tuple[Spaces, Lifetimes]:
    """Make the spaces and the lifetimes of the deployments of `models`.

    The spaces know what is retired today; on later days, asking the lifetimes tells them.
    """
    spaces = Spaces(
        policy=models.policy,
        deployments=models.deployments(),
        enabled=settings.canaries,
        interval_s=settings.canary_interval_s,
        fingerprint=fingerprints(providers),
        now_ms=now_ms,
    )
    lifetimes = Lifetimes(models.deployments(), now_ms=now_ms, on_retired=spaces.retire)
    lifetimes.today()
    return spaces, lifetimes
