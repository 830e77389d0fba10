"""Tells which deployments their providers have retired, and which they are about to retire.

Owns what a day means for a deployment's dates. Reads no clock but the one that it is given.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime, timedelta

import msgspec

from embedway.catalog.deployment import Deployment
from embedway.catalog.model import DeploymentSpec

NOTICE = timedelta(days=90)
"""How long before it retires that a deployment is spoken of."""
DAY_MS = 86_400_000


def is_retired(deployment: DeploymentSpec, today: date) -> bool:
    """Whether its provider no longer serves the model."""
    return deployment.retires is not None and deployment.retires <= today


def retires_soon(deployment: DeploymentSpec, today: date) -> bool:
    """Whether its provider still serves the model, but for at most `NOTICE`."""
    retires = deployment.retires
    return retires is not None and today < retires <= today + NOTICE


def is_deprecated(deployment: DeploymentSpec, today: date) -> bool:
    """Whether its provider advises against it."""
    return deployment.deprecated is not None and deployment.deprecated <= today


class Retirement(msgspec.Struct, frozen=True, kw_only=True):
    """What users of a deployment should know of its end."""

    deprecated: date | None
    """From when its provider advises against it; None if it does not yet."""
    retires: date | None
    """When it retires; None if that is more than `NOTICE` away, or not known."""


class CatalogToday(msgspec.Struct, frozen=True, kw_only=True):
    """What the dates of all deployments mean on one day."""

    date: date
    retired: frozenset[str] = frozenset()
    """The ids of deployments that nobody serves any more."""
    ending: Mapping[str, Retirement] = {}
    """By id, of the deployments that retire soon or are deprecated."""


class ModelLifetimes:
    """Keeps what is true today; a new day is noticed by whoever asks first."""

    def __init__(
        self,
        deployments: Iterable[Deployment],
        *,
        now_ms: Callable[[], int],
        on_retired: Callable[[frozenset[str]], None] = lambda _: None,
    ) -> None:
        """Keep the dates of all `deployments`.

        `on_retired` is called with the ids of the retired ones on each new day.
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
        """When each deployment retires, of those of which that is known."""
        return {id: each.retires for id, each in self._dated.items() if each.retires}

    def today(self) -> CatalogToday:
        """What is true now. Costs a look at the clock, except on the first call of a day."""
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
