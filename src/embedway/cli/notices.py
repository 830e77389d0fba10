"""Words the warnings that `serve` and `doctor` both print: things that work but need attention."""

import shlex
from collections.abc import Sequence
from datetime import date

from embedway.catalog.catalog import Catalog
from embedway.catalog.deployment import Deployment
from embedway.catalog.lifetimes import is_retired, retires_soon
from embedway.config.exposed import exposed_files
from embedway.config.settings import LoadedSettings

NAMED = 3
"""The most models of a provider to name; the others are counted."""


def unpriced(catalog: Catalog) -> str | None:
    """Return a warning that names the models without a known price, or None if all have one."""
    models: dict[str, list[str]] = {}
    for each in catalog.deployments():
        if each.spec.price_per_mtok_usd is None:
            models.setdefault(each.provider, []).append(each.model.id)
    if not models:
        return None
    names = "; ".join(f"{provider}: {_shorten(ids)}" for provider, ids in models.items())
    return (
        f"No price is known of {names}. They are billed at 0 USD, and requests within a budget do "
        "not go there. Give each a price_per_mtok_usd in embedway.toml; for the list: "
        "embedway catalog check"
    )


def retiring(catalog: Catalog, today: date) -> str | None:
    """Return a warning that names the deployments that retire soon, or None if none does."""
    soon = [each for each in catalog.deployments() if retires_soon(each.spec, today)]
    if not soon:
        return None
    return (
        f"Their providers retire {', '.join(map(_describe_end, soon))}. Move to another model "
        "before that, and embed all texts anew: vectors of two models cannot be compared."
    )


def retired(catalog: Catalog, today: date) -> str | None:
    """Return an error that lists the aliases of retired deployments only, or None without any."""
    gone = [
        f"{name!r} means {', '.join(map(_describe_end, resolved.deployments))}"
        for name in catalog.aliases
        if (resolved := catalog.find(name))
        and all(is_retired(each.spec, today) for each in resolved.deployments)
    ]
    if not gone:
        return None
    return (
        "Requests for these names are refused, because their providers have retired the models: "
        f"{'; '.join(gone)}. Let each name stand for another model in embedway.toml."
    )


def _describe_end(deployment: Deployment) -> str:
    spec = deployment.spec
    successor = f"; its successor is {spec.successor}" if spec.successor else ""
    return f"{deployment.id} ({spec.retires}{successor})"


def drifted(deployments: Sequence[str]) -> str | None:
    """Return an error that names the deployments that drifted, or None if there are none."""
    if not deployments:
        return None
    return (
        f"Their vectors changed, so they serve no requests: {', '.join(deployments)}. Find out "
        f"what changed at the provider, then: embedway spaces release {deployments[0]}"
    )


def readable(loaded: LoadedSettings) -> str | None:
    """Return a warning that names the files whose secrets everybody here can read, or None."""
    files = exposed_files(loaded)
    if not files:
        return None
    return (
        f"Every user of this machine can read the secrets in {', '.join(map(str, files))}. Run: "
        f"chmod 600 {shlex.join(map(str, files))}"
    )


def _shorten(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - NAMED} more" if len(ids) > NAMED else ""
    return f"{', '.join(ids[:NAMED])}{more}"
