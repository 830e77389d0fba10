"""Finds what cannot be right in a catalog: slipped prices, widths that do not fit, clashing names.

Pure: it must not know which files or settings the models were read from, and asks nobody.
"""

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from datetime import date, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Literal

import msgspec

from embedway.catalog.lifetimes import is_retired, retires_soon
from embedway.catalog.model import Model, Served

Level = Literal["error", "warning", "info"]
LEVELS: tuple[Level, ...] = ("error", "warning", "info")

LEAST_USD, MOST_USD = Decimal("0.001"), Decimal(2)
"""What a million tokens may cost at a provider. They cost 0.004 to 0.80 USD in litellm's price list
of August 2026 (1.109.1), but for slips: any of them, times or by 1000, is outside."""
FACTOR = 300
"""How much dearer or cheaper than at all others is taken for a slip of units, which is by 1000."""
PRICE_AGE = timedelta(days=365)
FEWEST_TOKENS, MOST_TOKENS = 64, 262_144
"""Of an item. Known models take 128 to 131,072."""
EU = frozenset(
    {
        *("AT", "BE", "BG", "CY", "CZ", "DE", "DK", "EE", "ES", "FI", "FR", "GR", "HR", "HU"),
        *("IE", "IT", "LT", "LU", "LV", "MT", "NL", "PL", "PT", "RO", "SE", "SI", "SK"),
    }
)


class Finding(msgspec.Struct, frozen=True):
    """Something that is wrong, or that nobody said."""

    level: Level
    where: str
    """The deployment, as `provider:model`."""
    what: str
    cure: str


def findings(
    served: Sequence[Served],
    *,
    own: Container[str],
    today: date,
    enabled: Container[str] = (),
) -> list[Finding]:
    """What is wrong with `served`, the worst first.

    Args:
        served: The catalog, in order of preference.
        own: Names of the providers that one runs oneself, where prices are one's own affair.
        today: By which prices age.
        enabled: Names of the providers that are asked; of others, many prices are not known.
    """
    hosted = [each for each in served if each.provider not in own]
    found = [
        *_prices(hosted),
        *_unpriced(hosted, enabled),
        *_dates(hosted, today),
        *_ends(served, today, enabled),
        *_places(hosted),
        *_widths(served),
        *_lengths(served),
        *_spaces(served),
        *_shared_spaces(served),
        *_names(served),
        *_licences(served),
    ]
    return sorted(found, key=lambda each: LEVELS.index(each.level))


def _prices(hosted: Sequence[Served]) -> Iterator[Finding]:
    plausible: dict[str, list[Decimal]] = {}
    for each in hosted:
        price = each.deployment.price_per_mtok_usd
        if price is not None and LEAST_USD <= price <= MOST_USD:
            plausible.setdefault(each.model.id, []).append(price)
    for each in hosted:
        price, others = each.deployment.price_per_mtok_usd, plausible.get(each.model.id, [])
        what, cure = "", "Prices are in USD per million tokens: check the unit."
        if price is None:
            continue
        if price == 0:
            if each.deployment.price_date is None:
                what = "it costs nothing, though somebody else runs it"
                cure = "Give its price, or take it out; if it is free indeed, give price_date."
        elif price not in others:
            what = f"{price} USD per million tokens; embeddings cost {LEAST_USD} to {MOST_USD}"
        elif price > min(others) * FACTOR or price < max(others) / FACTOR:
            what = f"{price} USD per million tokens; it costs {min(others)} to {max(others)}"
        if what:
            yield Finding("error", each.id, what, cure)


def _unpriced(hosted: Iterable[Served], enabled: Container[str]) -> Iterator[Finding]:
    for each in hosted:
        if each.deployment.price_per_mtok_usd is None and each.provider in enabled:
            yield Finding(
                "warning",
                each.id,
                "nobody says what it costs",
                "Give price_per_mtok_usd; until then it is billed at 0 USD, and requests within a "
                "budget do not go there.",
            )


def _dates(hosted: Iterable[Served], today: date) -> Iterator[Finding]:
    for each in hosted:
        read = each.deployment.price_date
        if not each.deployment.price_per_mtok_usd:
            continue
        if read is None:
            yield Finding(
                "warning",
                each.id,
                "nobody says when its price was read",
                f"Give price_date, such as {today}.",
            )
        elif read > today:
            yield Finding(
                "error",
                each.id,
                f"its price was read on {read}, which is to come",
                "Correct price_date.",
            )
        elif today - read > PRICE_AGE:
            yield Finding(
                "warning",
                each.id,
                f"its price was read on {read}, more than a year ago",
                "Read it again, and give price_date.",
            )


def _ends(served: Iterable[Served], today: date, enabled: Container[str]) -> Iterator[Finding]:
    for each in served:
        deployment = each.deployment
        retires = deployment.retires
        cure = "Ask for another model, and embed all texts anew."
        if deployment.successor:
            cure = f"Ask for {deployment.successor}, and embed all texts anew."
        for name, day in (("released", deployment.released), ("deprecated", deployment.deprecated)):
            if day and retires and day > retires:
                yield Finding(
                    "error",
                    each.id,
                    f"{name} on {day}, after it retires on {retires}",
                    "Correct either.",
                )
        if is_retired(deployment, today):
            yield Finding("info", each.id, f"its provider retired it on {retires}", cure)
        elif retires_soon(deployment, today):
            level = "warning" if each.provider in enabled else "info"
            yield Finding(level, each.id, f"its provider retires it on {retires}", cure)


def _places(hosted: Iterable[Served]) -> Iterator[Finding]:
    for each in hosted:
        country = each.deployment.hq_country
        if each.deployment.eu_native and country not in EU:
            yield Finding(
                "error" if country else "warning",
                each.id,
                f"eu_native, with headquarters in {country}"
                if country
                else "eu_native, and nobody says where its headquarters are",
                "Correct eu_native or hq_country of its provider.",
            )


def _widths(served: Iterable[Served]) -> Iterator[Finding]:
    for each in _distinct(served):
        model, trained = each.model, each.model.trained_dimensions
        widest = model.native_dimensions or model.dimensions
        if model.dimensions is None:
            yield Finding(
                "warning",
                each.id,
                "nobody says how wide its vectors are",
                "Give dimensions; until then the first answer tells.",
            )
        if widest and model.dimensions and widest < model.dimensions:
            yield Finding(
                "error",
                each.id,
                f"native_dimensions {widest} are fewer than its dimensions {model.dimensions}",
                "Correct either.",
            )
        if isinstance(trained, str):
            continue
        if any(one >= next for one, next in pairwise(trained)):
            yield Finding(
                "error",
                each.id,
                f"trained_dimensions {trained} are not in order",
                "Write each once, the smallest first.",
            )
        if widest and trained and max(trained) > widest:
            yield Finding(
                "error",
                each.id,
                f"trained for {max(trained)} dimensions, of only {widest}",
                "Correct dimensions or trained_dimensions; if fewer come unasked than it has, "
                "give native_dimensions.",
            )


def _lengths(served: Iterable[Served]) -> Iterator[Finding]:
    for each in _distinct(served):
        length = each.model.max_item_tokens
        if length is None:
            yield Finding(
                "warning",
                each.id,
                "nobody says how long a text it takes",
                "Give max_item_tokens; until then every text is sent to it.",
            )
        elif not FEWEST_TOKENS <= length <= MOST_TOKENS:
            yield Finding(
                "error",
                each.id,
                f"max_item_tokens {length}; models take {FEWEST_TOKENS} to {MOST_TOKENS}",
                "Correct it: it is of one text, in tokens.",
            )


_OF_A_SPACE: dict[str, Callable[[Model], object]] = {
    "dimensions": lambda model: model.dimensions,
    "pooling": lambda model: model.pooling,
    "normalised": lambda model: model.normalised,
}


def _spaces(served: Iterable[Served]) -> Iterator[Finding]:
    first: dict[str, Served] = {}
    for each in _distinct(served):
        other = first.setdefault(each.model.id, each)
        for name, fact in _OF_A_SPACE.items():
            here, there = fact(each.model), fact(other.model)
            # A width that nobody says is that of the answers, which are compared.
            if here != there and (name != "dimensions" or None not in {here, there}):
                yield Finding(
                    "error",
                    each.id,
                    f"{name} is {here}, but {there} at {other.id}: not one space",
                    "Correct either, or give one of them another id.",
                )


def _shared_spaces(served: Iterable[Served]) -> Iterator[Finding]:
    shares_with = {each.model.id: each.model.same_space_as for each in served}
    for each in _distinct(served):
        other = each.model.same_space_as
        if not other:
            continue
        if other not in shares_with:
            yield Finding(
                "error",
                each.id,
                f"same_space_as is {other!r}, and no provider has that model",
                "Correct the id.",
            )
        elif root := shares_with[other]:
            yield Finding(
                "error",
                each.id,
                f"same_space_as is {other!r}, which itself names {root!r}",
                "All models of a space name the same one, and that one names none.",
            )


def _names(served: Sequence[Served]) -> Iterator[Finding]:
    providers = {each.provider for each in served}
    here = {each.model.id: each for each in served if each.model.weights}
    ids: dict[str, Served] = {}
    meant: dict[tuple[str, str], Served] = {}
    for each in served:
        id, of = each.model.id, each.id.partition(":")[0]
        if ids.setdefault(each.id, each) is not each:
            yield Finding("error", each.id, "it is there twice", "Take one out.")
            continue
        for name in dict.fromkeys((id, each.name)):
            other = meant.setdefault((each.provider, name), each)
            if other is not each:
                yield Finding(
                    "error",
                    each.id,
                    f"{name!r} also means {other.model.id!r} at {of}",
                    "Correct its name, or the other's.",
                )
        prefix, colon, _ = id.partition(":")
        if colon and prefix in providers:
            yield Finding(
                "error",
                each.id,
                f"by its id {id!r} the provider {prefix!r} is asked, not this one",
                "Give it an id without a provider's name.",
            )
        if each is not here.get(id, each):
            yield Finding(
                "warning",
                each.id,
                "it has the id of a model that runs here",
                "Give it another id, unless it has the same weights.",
            )


def _licences(served: Iterable[Served]) -> Iterator[Finding]:
    for each in _distinct(served):
        if each.model.licence == "unknown":
            yield Finding(
                "info",
                each.id,
                "nobody says what its licence is",
                "Give licence, such as Apache-2.0, or proprietary.",
            )


def _distinct(served: Iterable[Served]) -> Iterator[Served]:
    """Of those with the same facts of the model, the first: a fact is wrong once."""
    seen: dict[str, list[Model]] = {}
    for each in served:
        models = seen.setdefault(each.model.id, [])
        if each.model not in models:
            models.append(each.model)
            yield each
