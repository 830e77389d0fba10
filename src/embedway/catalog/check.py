"""Finds mistakes in a catalog: implausible prices, inconsistent widths, clashing names.

Does no I/O and knows no files or settings.
"""

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from datetime import date, timedelta
from decimal import Decimal
from functools import partial
from itertools import pairwise
from typing import Literal

import msgspec

from embedway.catalog.deployment import Deployment
from embedway.catalog.lifetimes import is_retired, retires_soon
from embedway.catalog.model import Model

Level = Literal["error", "warning", "info"]
LEVELS: tuple[Level, ...] = ("error", "warning", "info")

LEAST_USD, MOST_USD = Decimal("0.001"), Decimal(2)
"""The plausible prices of a million tokens. In litellm's price list of August 2026 (1.109.1) they
are 0.004 to 0.80 USD; a slip of units, a factor of 1000, moves any of these out of range."""
FACTOR = 300
"""A price this many times above or below all others is taken for a slip of units."""
PRICE_AGE = timedelta(days=365)
"""The age at which a price should be read again."""
FEWEST_TOKENS, MOST_TOKENS = 64, 262_144
"""The plausible values of `max_item_tokens`. Known models have 128 to 131,072."""
EU = frozenset(
    {
        *("AT", "BE", "BG", "CY", "CZ", "DE", "DK", "EE", "ES", "FI", "FR", "GR", "HR", "HU"),
        *("IE", "IT", "LT", "LU", "LV", "MT", "NL", "PL", "PT", "RO", "SE", "SI", "SK"),
    }
)


class CatalogFinding(msgspec.Struct, frozen=True):
    """A mistake in the catalog, or a missing fact."""

    level: Level
    where: str
    """The deployment, as `provider:model`."""
    what: str
    cure: str


Faults = Iterator[tuple[Level, str, str]]
"""The level of each mistake, what is wrong, and the cure."""


def check_catalog(
    served: Sequence[Deployment],
    *,
    own: Container[str],
    today: date,
    enabled: Container[str] = (),
) -> list[CatalogFinding]:
    """Return what is wrong with the deployments `served`, the worst first.

    Args:
        served: The deployments, in order of preference.
        own: The names of the operator's own servers, whose prices are not checked.
        today: The day to measure the age of prices by.
        enabled: The names of the enabled providers. Missing prices are reported only for these.
    """
    hosted = [each for each in served if each.provider not in own]
    distinct = list(_distinct(served))
    checks: list[tuple[Sequence[Deployment], Callable[[Deployment], Faults]]] = [
        (hosted, partial(_price, plausible=_plausible_prices(hosted))),
        (hosted, partial(_unpriced, enabled=enabled)),
        (hosted, partial(_price_date, today=today)),
        (served, partial(_end, today=today, enabled=enabled)),
        (hosted, _place),
        (distinct, _widths),
        (distinct, _length),
        (distinct, partial(_space, first={})),
        (distinct, partial(_shared_space, claims=_claims(served))),
        (served, _Names(served)),
        (distinct, _licence),
    ]
    found = [
        CatalogFinding(level, each.id, what, cure)
        for group, check in checks
        for each in group
        for level, what, cure in check(each)
    ]
    return sorted(found, key=lambda each: LEVELS.index(each.level))


def _plausible_prices(hosted: Iterable[Deployment]) -> dict[str, list[Decimal]]:
    plausible: dict[str, list[Decimal]] = {}
    for each in hosted:
        price = each.spec.price_per_mtok_usd
        if price is not None and LEAST_USD <= price <= MOST_USD:
            plausible.setdefault(each.model.id, []).append(price)
    return plausible


def _price(each: Deployment, plausible: Mapping[str, list[Decimal]]) -> Faults:
    price, others = each.spec.price_per_mtok_usd, plausible.get(each.model.id, [])
    unit = "Prices are in USD per million tokens: check the unit."
    if price is None:
        return
    if price == 0:
        if each.spec.price_date is None:
            cure = "Give its price, or remove it; if it really is free, give price_date."
            yield "error", "its price is 0, though it is not your own server", cure
    elif price not in others:
        usual = f"embeddings cost {LEAST_USD} to {MOST_USD}"
        yield "error", f"{price} USD per million tokens; {usual}", unit
    elif price > min(others) * FACTOR or price < max(others) / FACTOR:
        usual = f"it costs {min(others)} to {max(others)}"
        yield "error", f"{price} USD per million tokens; {usual}", unit


def _unpriced(each: Deployment, enabled: Container[str]) -> Faults:
    if each.spec.price_per_mtok_usd is None and each.provider in enabled:
        cure = (
            "Give price_per_mtok_usd; until then it is billed at 0 USD, and requests within a "
            "budget do not go there."
        )
        yield "warning", "its price is unknown", cure


def _price_date(each: Deployment, today: date) -> Faults:
    read = each.spec.price_date
    if not each.spec.price_per_mtok_usd:
        return
    if read is None:
        yield "warning", "the date of its price is unknown", f"Give price_date, such as {today}."
    elif read > today:
        yield "error", f"its price was read on {read}, in the future", "Correct price_date."
    elif today - read > PRICE_AGE:
        what = f"its price was read on {read}, more than a year ago"
        yield "warning", what, "Read it again, and give price_date."


def _end(each: Deployment, today: date, enabled: Container[str]) -> Faults:
    deployment, retires = each.spec, each.spec.retires
    for name, day in (("released", deployment.released), ("deprecated", deployment.deprecated)):
        if day and retires and day > retires:
            yield "error", f"{name} on {day}, after it retires on {retires}", "Correct either."
    cure = f"Ask for {deployment.successor or 'another model'}, and embed all texts again."
    if is_retired(deployment, today):
        yield "info", f"its provider retired it on {retires}", cure
    elif retires_soon(deployment, today):
        level = "warning" if each.provider in enabled else "info"
        yield level, f"its provider retires it on {retires}", cure


def _place(each: Deployment) -> Faults:
    country = each.spec.hq_country
    if each.spec.eu_native and country not in EU:
        cure = "Correct eu_native or hq_country of its provider."
        if country:
            yield "error", f"eu_native, with headquarters in {country}", cure
        else:
            yield "warning", "eu_native, but the country of its headquarters is unknown", cure


def _widths(each: Deployment) -> Faults:
    model, trained = each.model, each.model.trained_dimensions
    widest = model.native_dimensions or model.dimensions
    if model.dimensions is None:
        cure = "Give dimensions; until then the first answer decides."
        yield "warning", "the width of its vectors is unknown", cure
    if widest and model.dimensions and widest < model.dimensions:
        what = f"native_dimensions {widest} are fewer than its dimensions {model.dimensions}"
        yield "error", what, "Correct either."
    if isinstance(trained, str):
        return
    if any(one >= next for one, next in pairwise(trained)):
        what = f"trained_dimensions {trained} are not in order"
        yield "error", what, "Write each once, the smallest first."
    if widest and trained and max(trained) > widest:
        cure = (
            "Correct dimensions or trained_dimensions; if the default is not its widest, give "
            "native_dimensions."
        )
        yield "error", f"trained for {max(trained)} dimensions, of only {widest}", cure


def _length(each: Deployment) -> Faults:
    length = each.model.max_item_tokens
    if length is None:
        cure = "Give max_item_tokens; until then every text is sent to it."
        yield "warning", "the longest text it accepts is unknown", cure
    elif not FEWEST_TOKENS <= length <= MOST_TOKENS:
        what = f"max_item_tokens {length}; models take {FEWEST_TOKENS} to {MOST_TOKENS}"
        yield "error", what, "Correct it: it counts the tokens of one text."


def _space(each: Deployment, first: dict[str, Deployment]) -> Faults:
    other = first.setdefault(each.model.id, each)
    for name in ("dimensions", "pooling", "normalised"):
        here, there = getattr(each.model, name), getattr(other.model, name)
        # An unknown width is not a contradiction: it is checked when vectors are compared.
        if here != there and (name != "dimensions" or None not in {here, there}):
            what = f"{name} is {here}, but {there} at {other.id}: not one space"
            yield "error", what, "Correct either, or give one of them another id."


def _claims(served: Iterable[Deployment]) -> dict[str, str]:
    return {each.model.id: each.model.same_space_as for each in served}


def _shared_space(each: Deployment, claims: Mapping[str, str]) -> Faults:
    other = each.model.same_space_as
    if other and other not in claims:
        what = f"same_space_as is {other!r}, and no provider has that model"
        yield "error", what, "Correct the id."
    elif root := claims.get(other):
        what = f"same_space_as is {other!r}, which itself names {root!r}"
        yield "error", what, "All models of a space name the same one, and that one names none."


class _Names:
    """Finds names that mean two things; call it once for each deployment, in order."""

    def __init__(self, served: Sequence[Deployment]) -> None:
        self._providers = {each.provider for each in served}
        self._here = {each.model.id: each for each in served if each.model.weights}
        self._ids: dict[str, Deployment] = {}
        self._meant: dict[tuple[str, str], Deployment] = {}

    def __call__(self, each: Deployment) -> Faults:
        """Return the mistakes in the names of this deployment."""
        id = each.model.id
        if self._ids.setdefault(each.id, each) is not each:
            yield "error", "it is listed twice", "Remove one."
            return
        for name in dict.fromkeys((id, each.upstream_name)):
            other = self._meant.setdefault((each.provider, name), each)
            if other is not each:
                what = f"{name!r} also means {other.model.id!r} at {each.provider}"
                yield "error", what, "Correct its name, or the other's."
        prefix, colon, _ = id.partition(":")
        if colon and prefix in self._providers:
            what = f"its id {id!r} means a model of the provider {prefix!r}, not this one"
            yield "error", what, "Give it an id without a provider's name."
        if each is not self._here.get(id, each):
            cure = "Give it another id, unless it has the same weights."
            yield "warning", "it has the id of a local model", cure


def _licence(each: Deployment) -> Faults:
    if each.model.licence == "unknown":
        cure = "Give licence, such as Apache-2.0, or proprietary."
        yield "info", "its licence is unknown", cure


def _distinct(served: Iterable[Deployment]) -> Iterator[Deployment]:
    """Return one deployment for each model with the same facts, to report each mistake once."""
    seen: dict[str, list[Model]] = {}
    for each in served:
        models = seen.setdefault(each.model.id, [])
        if each.model not in models:
            models.append(each.model)
            yield each
