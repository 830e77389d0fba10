"""What works, but an operator should know: `serve` and `doctor` say it, in the same words."""

import shlex
from collections.abc import Sequence
from datetime import date

from embedway.catalog.catalog import Catalog
from embedway.catalog.deployment import Deployment
from embedway.catalog.lifetimes import is_retired, retires_soon
from embedway.config.exposed import exposed_files
from embedway.config.settings import LoadedSettings

NAMED = 3
"""Models of a provider that are named; of the others, how many there are is said."""


def unpriced(catalog: Catalog) -> str | None:
    """Says which models have no known price; None if all have one."""
    models: dict[str, list[str]] = {}
    for each in catalog.deployments():
        if each.spec.price_per_mtok_usd is None:
            models.setdefault(each.provider, []).append(each.model.id)
    if not models:
        return None
    found = "; ".join(f"{provider}: {_some(ids)}" for provider, ids in models.items())
    return (
        f"No price is known of {found}. They are billed at 0 USD, and requests within a budget do "
        "not go there. Give each a price_per_mtok_usd in embedway.toml; for the list: "
        "embedway catalog check"
    )


def retiring(catalog: Catalog, today: date) -> str | None:
    """Says which deployments retire soon; None if none does."""
    soon = [each for each in catalog.deployments() if retires_soon(each.spec, today)]
    if not soon:
        return None
    return (
        f"Their providers retire {', '.join(map(_end, soon))}. Move to another model before that, "
        "and embed all texts anew: vectors of two models cannot be compared."
    )


def retired(catalog: Catalog, today: date) -> str | None:
    """Says which names mean nothing but retired deployments; None if none does."""
    gone = [
        f"{name!r} means {', '.join(map(_end, named.deployments))}"
        for name in catalog.aliases
        if (named := catalog.find(name))
        and all(is_retired(each.spec, today) for each in named.deployments)
    ]
    if not gone:
        return None
    return (
        f"Whoever asks for these names is refused, for their providers have retired the models: "
        f"{'; '.join(gone)}. Let each name stand for another model in embedway.toml."
    )


def _end(served: Deployment) -> str:
    deployment = served.spec
    successor = f"; its successor is {deployment.successor}" if deployment.successor else ""
    return f"{served.id} ({deployment.retires}{successor})"


def drifted(deployments: Sequence[str]) -> str | None:
    """Says which deployments drifted; None if there are none."""
    if not deployments:
        return None
    return (
        f"No longer the vectors they were, and so not asked: {', '.join(deployments)}. Find out "
        f"what changed there, then: embedway spaces release {deployments[0]}"
    )


def readable(loaded: LoadedSettings) -> str | None:
    """Says which files show their secrets to every user of this machine; None if none does."""
    files = exposed_files(loaded)
    if not files:
        return None
    return (
        f"Every user of this machine can read the secrets in {', '.join(map(str, files))}. Run: "
        f"chmod 600 {shlex.join(map(str, files))}"
    )


def _some(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - NAMED} more" if len(ids) > NAMED else ""
    return f"{', '.join(ids[:NAMED])}{more}"
