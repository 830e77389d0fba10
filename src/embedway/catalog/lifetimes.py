"""Finds the deployments that their providers have retired or will retire soon."""

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime, timedelta

import msgspec

from embedway.catalog.deployment import Deployment
from embedway.catalog.model import DeploymentSpec

NOTICE = timedelta(days=90)
"""How long before its retirement a deployment is reported."""
DAY_MS = 86_400_000


def is_retired(deployment: DeploymentSpec, today: date) -> bool:
    """Return whether the provider no longer serves the deployment."""
    return deployment.retires is not None and deployment.retires <= today


def retires_soon(deployment: DeploymentSpec, today: date) -> bool:
    """Return whether the provider will retire the deployment within `NOTICE`."""
    retires = deployment.retires
    return retires is not None and today < retires <= today + NOTICE


def is_deprecated(deployment: DeploymentSpec, today: date) -> bool:
    """Return whether the provider advises against the deployment."""
    return deployment.deprecated is not None and deployment.deprecated <= today


class Retirement(msgspec.Struct, frozen=True, kw_only=True):
    """The announced end of a deployment."""

    deprecated: date | None
    """When the provider began to advise against it; None if it does not yet."""
    retires: date | None
    """When it retires; None if that is more than `NOTICE` away or unknown."""


class CatalogToday(msgspec.Struct, frozen=True, kw_only=True):
    """The retired and ending deployments on one day."""

    date: date
    retired: frozenset[str] = frozenset()
    """The ids of the retired deployments."""
    ending: Mapping[str, Retirement] = {}
    """The announced end of deployments that retire soon or are deprecated, by id."""


class ModelLifetimes:
    """Knows which deployments are retired today. The first call on a new day updates it."""

    def __init__(
        self,
        deployments: Iterable[Deployment],
        *,
        now_ms: Callable[[], int],
        on_retired: Callable[[frozenset[str]], None] = lambda _: None,
    ) -> None:
        """Keep the dates of all `deployments`.

        `on_retired` is called on each new day, with the ids of the retired deployments.
        """
        self._dated = {
            each.id: each.spec for each in deployments if each.spec.retires or each.spec.deprecated
        }
        self._now_ms = now_ms
        self._on_retired = on_retired
        self._day = -1
        self._today = CatalogToday(date=date.min)

    @property
    def retirements(self) -> Mapping[str, date]:
        """The day on which each deployment retires, by id, where known."""
        return {id: each.retires for id, each in self._dated.items() if each.retires}

    def today(self) -> CatalogToday:
        """Return the retired and ending deployments of today."""
        day = self._now_ms() // DAY_MS
        if day != self._day:
            self._today = self._on(datetime.fromtimestamp(day * 86_400, UTC).date())
            self._day = day
            self._on_retired(self._today.retired)
        return self._today

    def _on(self, day: date) -> CatalogToday:
        dated = self._dated.items()
        retired = frozenset(id for id, each in dated if is_retired(each, day))
        ending = {
            id: Retirement(
                deprecated=each.deprecated if is_deprecated(each, day) else None,
                retires=each.retires if retires_soon(each, day) else None,
            )
            for id, each in dated
            if id not in retired and (retires_soon(each, day) or is_deprecated(each, day))
        }
        return CatalogToday(date=day, retired=retired, ending=ending)
