"""`embedway doctor`: says what is missing here, and how to cure it."""

import asyncio
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property
from http.client import HTTPException
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import typer
from sqlalchemy.exc import SQLAlchemyError

from embedway.catalog import catalog
from embedway.catalog.catalog import Catalog
from embedway.catalog.deployment import Deployment
from embedway.cli import notices
from embedway.cli.plural import count_of
from embedway.cli.terminal import AsJson, err, escape, load_providers, out, print_json, wheel_of
from embedway.cli.trials import TOKENS, Trial, cost_usd, model_to_try, try_keys
from embedway.config import catalogs
from embedway.config import settings as config
from embedway.config.models import build_catalog
from embedway.config.providers import incomplete_providers
from embedway.config.settings import ConfigError, LoadedSettings
from embedway.config.spaces import build_memberships
from embedway.config.stores import open_configured_store, reveal
from embedway.core.clock import now_ms, today
from embedway.local import weights
from embedway.organization.keys import KeyBootstrap
from embedway.providers.provider_config import ProviderConfig
from embedway.serving.address import AddressError, base_url, bind, is_answering, read
from embedway.spaces.store import SpaceStore
from embedway.storage import database
from embedway.storage.database import DatabaseError, DatabaseMissing
from embedway.storage.store import Store

PROVIDER_CALLS = "embedway_provider_calls_total"
FREE_BYTES = 500 * 2**20
REDIS_WAIT_S = 2

Level = Literal["ok", "warn", "fail"]
DoctorFinding = tuple[Level, str]
"""How grave it is, and what was found or how to cure it. Only what fails makes `doctor` fail."""
_COLOURS: dict[Level, str] = {"ok": "green", "warn": "yellow", "fail": "red"}


class _Place:
    """What the checks look at: the settings, and what is made of them, each made once.

    Making it raises a `ConfigError` or `DatabaseError` where it cannot be made.
    """

    def __init__(self, loaded: LoadedSettings) -> None:
        self.loaded = loaded
        self.settings = loaded.settings

    @cached_property
    def declared(self) -> list[ProviderConfig]:
        """The providers that are enabled."""
        return load_providers(self.loaded)

    @cached_property
    def catalog(self) -> Catalog:
        """Their models, and those that run here."""
        return build_catalog(self.settings, self.declared)

    @cached_property
    def store(self) -> Store:
        """What is kept, open."""
        return open_configured_store(self.settings, create=False)


def doctor(
    providers: Annotated[
        bool,
        typer.Option(
            "--providers",
            help="Also send one short text with each provider's keys, which it bills.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check that everything the gateway needs is here, and say how to cure what is not.

    Exits with 1 if something fails, so that a script can ask too; a warning is not a failure.

        embedway doctor

        embedway doctor --providers
    """
    place = _Place(config.load_settings())
    findings: dict[str, DoctorFinding] = {}
    for name, check in CHECKS.items():
        found = _checked(check, place)
        earlier = next((each for each, other in findings.items() if other == found), None)
        if found[0] == "fail" and earlier:
            found = "warn", f"not checked: see {earlier}"
        findings[name] = found
    if providers:
        findings |= _tried(place)
    if as_json:
        print_json(
            [
                {"check": name, "ok": level != "fail", "level": level, "detail": text}
                for name, (level, text) in findings.items()
            ]
        )
    else:
        widest = max(map(len, findings))
        for name, (level, text) in findings.items():
            out.print(f"[{_COLOURS[level]}]{level:4}[/] {escape(name):{widest}} ", end="")
            out.print(text, markup=False)
    if any(level == "fail" for level, _ in findings.values()):
        raise typer.Exit(1)


def _checked(check: Callable[[_Place], DoctorFinding], place: _Place) -> DoctorFinding:
    try:
        return check(place)
    except (ConfigError, DatabaseError) as error:
        return "fail", str(error)
    except SQLAlchemyError as error:
        return "fail", f"The database failed: {database.explain(error)}"


def _tried(place: _Place) -> dict[str, DoctorFinding]:
    """What comes of a short text with each key of each provider."""
    try:
        served = [
            (each, model_to_try(each, models=catalogs.in_use(place.settings).models))
            for each in place.declared
        ]
    except ConfigError:
        return {}  # said already
    asked = [(each, model) for each, model in served if model]
    if not served:
        return {"keys": ("ok", "no provider is enabled, so there is no key to try")}
    each_cost = [cost_usd(model, TOKENS) for each, model in asked for _ in each.keys or [None]]
    err.print(
        f"Sending a text of about {TOKENS} tokens with {count_of(len(each_cost), 'key')} of "
        f"{escape(', '.join(each.name for each, _ in asked)) or 'nobody'}. USD that are billed "
        f"for it: {' + '.join(each_cost) or '0'}."
    )
    found: dict[str, DoctorFinding] = {
        f"provider {each.name}": (
            "fail",
            "not tried, for no model of it is known. Run: "
            f"embedway providers test {each.name} --model MODEL",
        )
        for each, model in served
        if model is None
    }
    for (each, model), trials in zip(asked, asyncio.run(_try_all(place, asked)), strict=True):
        for trial in trials:
            name = " ".join(filter(None, ("provider", each.name, trial.key)))
            found[name] = _outcome(trial, model)
    return found


async def _try_all(
    place: _Place, asked: Sequence[tuple[ProviderConfig, Deployment]]
) -> list[list[Trial]]:
    timeout_s = place.settings.request_timeout_s
    tries = (try_keys(each, model, timeout_s=timeout_s) for each, model in asked)
    return await asyncio.gather(*tries)


def _outcome(trial: Trial, served: Deployment) -> DoctorFinding:
    if trial.failure:
        return "fail", trial.failure
    tokens = trial.tokens or TOKENS
    return "ok", (
        f"{served.upstream_name}: {trial.dimensions} dimensions, {trial.milliseconds} "
        f"ms, {tokens} tokens, "
        f"{cost_usd(served, tokens)} USD"
    )


def _data(place: _Place) -> DoctorFinding:
    try:
        store = place.store
    except DatabaseMissing as error:
        return "warn", (
            f"{error.what} `embedway serve` makes it, or `embedway db init`. If a gateway has one "
            "already, run this in its folder, or with its settings."
        )
    working = [key for key in KeyBootstrap(store.database).all() if key.state(now_ms()) == "active"]
    return "ok", f"{database.describe(store.database)} opens; working keys: {len(working)}"


def _redis(place: _Place) -> DoctorFinding:
    url = reveal(place.settings.redis_url)
    if url is None:
        return "ok", "not set: this gateway counts rate limits alone"
    from redis import Redis, RedisError  # noqa: PLC0415  # slow

    where = urlsplit(url)
    shown = f"{where.hostname}:{where.port or 6379}" if where.hostname else where.path
    client: Any = Redis.from_url(  # pyright: ignore[reportUnknownMemberType]
        url, socket_timeout=REDIS_WAIT_S, socket_connect_timeout=REDIS_WAIT_S
    )
    try:
        client.ping()
    except (RedisError, OSError) as error:
        return "fail", (
            f"{str(error).rstrip('.')}. Start it, or correct EMBEDWAY_REDIS_URL; until then each "
            "gateway goes on with a share of every rate limit."
        )
    finally:
        client.close()
    return "ok", f"{shown} answers"


def _disk(place: _Place) -> DoctorFinding:
    settings = place.settings
    folder = next(each for each in (settings.data_dir, *settings.data_dir.parents) if each.exists())
    free = shutil.disk_usage(folder).free
    found = f"{free // 2**20} MiB free for {settings.data_dir}"
    if free < FREE_BYTES:
        return (
            "fail",
            f"{found}. Make room: without it nothing can be billed, so nothing is answered.",
        )
    return "ok", found


def _weights(place: _Place) -> DoctorFinding:
    settings = place.settings
    missing = [
        model.id
        for model in catalog.load_catalog(eu_native=settings.eu_native).local_models()
        if not weights.has_weights(wheel_of(model), settings.cache_dir)
    ]
    if missing:
        return (
            "fail",
            f"{', '.join(missing)} not in {settings.cache_dir}. Run: embedway models pull",
        )
    return "ok", f"in {settings.cache_dir}"


def _providers(place: _Place) -> DoctorFinding:
    declared = place.declared
    if missing := incomplete_providers(place.loaded):
        return "fail", " ".join(missing)
    names = ", ".join(f"{each.name} ({each.origin})" for each in declared)
    if not names:
        return "ok", "none but this gateway"
    url = base_url(place.settings)
    calls = _refused_calls(url)
    if refused := [each.name for each in declared if calls[each.name]]:
        return "warn", (
            f"Since the gateway on {url} started, {', '.join(refused)} refused a key in "
            f"{count_of(sum(calls[name] for name in refused), 'call')}. Find out which: "
            "embedway doctor --providers"
        )
    return "ok", f"{names}; whether they take their keys: embedway doctor --providers"


def _catalog(place: _Place) -> DoctorFinding:
    used = catalogs.in_use(place.settings)
    return ("warn", used.problem) if used.problem else ("ok", used.described)


def _models(place: _Place) -> DoctorFinding:
    if gone := notices.retired(place.catalog, today()):
        return "fail", gone
    found = [
        each
        for each in (notices.retiring(place.catalog, today()), notices.unpriced(place.catalog))
        if each
    ]
    return ("warn", " ".join(found)) if found else ("ok", "each has a price, or runs here")


def _spaces(place: _Place) -> DoctorFinding:
    try:
        store = place.store
    except DatabaseMissing:
        return "ok", "nothing has been proven yet"
    spaces, _ = build_memberships(place.settings, place.catalog, place.declared)
    spaces.load(*asyncio.run(SpaceStore(store.database, availability=store.availability).load()))
    found = notices.drifted(spaces.drifted_ids())
    return ("fail", found) if found else ("ok", "nothing has drifted")


def _files(place: _Place) -> DoctorFinding:
    found = notices.readable(place.loaded)
    return ("warn", found) if found else ("ok", "no secret is in a file that everybody can read")


def _precision(place: _Place) -> DoctorFinding:
    settings = place.settings
    from embedway.local.openvino import resolve_precision  # noqa: PLC0415  # the engine: slow

    try:
        cores = count_of(os.cpu_count() or 1, "core")
        return "ok", f"{resolve_precision(settings.precision)} on {cores}"
    except ValueError as error:
        return "fail", str(error)


def _port(place: _Place) -> DoctorFinding:
    settings = place.settings
    try:
        bind(settings).close()
    except AddressError as error:
        url = base_url(settings)
        if is_answering(url):
            return "ok", f"a gateway is ready on {url}"
        if _lives(url):
            return "fail", (
                f"A gateway is on {url}, but it is not ready: {url}/readyz and its log say why."
            )
        return "fail", str(error)
    return "ok", f"{settings.port} is free"


def _lives(url: str) -> bool:
    """Whether a gateway is there, ready or not."""
    try:
        return json.loads(read(f"{url}/livez")) == {"status": "alive"}
    except (OSError, ValueError, HTTPException):
        return False


def _refused_calls(url: str) -> Counter[str]:
    """How many calls each provider refused for their key, as the gateway there counts them."""
    from prometheus_client.parser import text_string_to_metric_families  # noqa: PLC0415  # slow

    calls = Counter[str]()
    try:
        for family in text_string_to_metric_families(read(f"{url}/metrics").decode()):
            for each in family.samples:
                if each.name == PROVIDER_CALLS and each.labels["outcome"] == "credentials":
                    calls[each.labels["provider"]] = int(each.value)
    except (OSError, ValueError, HTTPException):
        pass  # no gateway is there, which another check tells
    return calls


CHECKS: dict[str, Callable[[_Place], DoctorFinding]] = {
    "data": _data,
    "redis": _redis,
    "disk": _disk,
    "weights": _weights,
    "precision": _precision,
    "providers": _providers,
    "catalog": _catalog,
    "models": _models,
    "spaces": _spaces,
    "files": _files,
    "port": _port,
}
