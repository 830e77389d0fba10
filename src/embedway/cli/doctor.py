"""`embedway doctor`: says what is missing and how to fix it."""

import asyncio
import os
import shutil
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPException
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import typer
from sqlalchemy.exc import SQLAlchemyError

from embedway.catalog.catalog import AUTO
from embedway.cli import notices
from embedway.cli.setup import Setup
from embedway.cli.terminal import AsJson, count_of, escape, note, out, print_json
from embedway.cli.trials import TOKENS, Trial, find_target, try_keys
from embedway.config import settings as config
from embedway.config.providers import incomplete_providers
from embedway.config.settings import ConfigError
from embedway.config.stores import reveal
from embedway.config.webhooks import read_webhooks
from embedway.core import extras
from embedway.core.clock import now_ms, today
from embedway.core.extras import MissingExtra
from embedway.events.outbox import read_summaries
from embedway.organization.keys import KeyBootstrap
from embedway.serving.address import AddressError, base_url, bind, fetch_page, is_answering
from embedway.storage import database
from embedway.storage.database import DatabaseError, DatabaseMissing

PROVIDER_CALLS = "embedway_provider_calls_total"
MIN_FREE_BYTES = 500 * 2**20
REDIS_TIMEOUT_S = 2
CLIENT_DEFAULTS = ("text-embedding-ada-002", "text-embedding-3-small")
"""The models that clients of OpenAI's API ask for unless told otherwise."""

Level = Literal["ok", "warn", "fail"]
DoctorFinding = tuple[Level, str]
"""The level of a finding, and its text. Only the level `fail` makes `doctor` exit with status 1."""
_COLOURS: dict[Level, str] = {"ok": "green", "warn": "yellow", "fail": "red"}


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
    """Check that everything the gateway needs is here, and say how to fix what is not.

    The exit status is 1 if a check fails, for scripts to read; a warning is not a failure.

        embedway doctor

        embedway doctor --providers
    """
    setup = Setup()
    findings: dict[str, DoctorFinding] = {}
    for name, check in CHECKS.items():
        finding = _run_check(check, setup)
        earlier = next((each for each, other in findings.items() if other == finding), None)
        if finding[0] == "fail" and earlier:
            finding = "warn", f"not checked: see {earlier}"
        findings[name] = finding
    if providers:
        findings |= _check_keys(setup)
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


def _run_check(check: Callable[[Setup], DoctorFinding], setup: Setup) -> DoctorFinding:
    try:
        return check(setup)
    except (ConfigError, DatabaseError, MissingExtra) as error:
        return "fail", str(error)
    except SQLAlchemyError as error:
        return "fail", f"The database failed: {database.explain(error)}"


def _check_keys(setup: Setup) -> dict[str, DoctorFinding]:
    try:
        targets = {each.name: find_target(setup, each) for each in setup.providers}
    except ConfigError:
        return {}  # an earlier check has reported it
    if not targets:
        return {"keys": ("ok", "no provider is enabled, so there is no key to try")}
    usable = {name: target for name, target in targets.items() if target}
    costs = [
        each.cost_usd(TOKENS) for each in usable.values() for _ in each.provider.keys or [None]
    ]
    note(
        f"Sending a text of about {TOKENS} tokens with {count_of(len(costs), 'key')} of "
        f"{', '.join(usable) or 'no provider'}. Cost in USD: {' + '.join(costs) or '0'}."
    )
    findings: dict[str, DoctorFinding] = {
        f"provider {name}": (
            "fail",
            "not tried, because no model of it is known. Run: "
            f"embedway providers test {name} --model MODEL",
        )
        for name in targets
        if name not in usable
    }
    for trial in asyncio.run(try_keys(usable.values())):
        name = " ".join(filter(None, ("provider", trial.target.provider.name, trial.key)))
        findings[name] = _trial_finding(trial)
    return findings


def _trial_finding(trial: Trial) -> DoctorFinding:
    if trial.failure:
        return "fail", trial.failure
    tokens = trial.tokens or TOKENS
    return "ok", (
        f"{trial.target.deployment.upstream_name}: {trial.dimensions} dimensions, "
        f"{trial.milliseconds} ms, {tokens} tokens, {trial.target.cost_usd(tokens)} USD"
    )


def _data(setup: Setup) -> DoctorFinding:
    try:
        store = setup.store
    except DatabaseMissing as error:
        return "warn", (
            f"{error.what} `embedway serve` or `embedway db init` makes one. If a gateway has one "
            "already, run this in its folder, or with its settings."
        )
    working = sum(key.state(now_ms()) == "active" for key in KeyBootstrap(store.database).all())
    return "ok", f"{database.describe(store.database)} opens; working keys: {working}"


def _redis(setup: Setup) -> DoctorFinding:
    url = reveal(setup.settings.redis_url)
    if url is None:
        return "ok", "not set: this gateway counts rate limits alone"
    with extras.importing("redis", "Redis (EMBEDWAY_REDIS_URL)"):
        from redis import Redis, RedisError  # noqa: PLC0415  # slow

    parts = urlsplit(url)
    address = f"{parts.hostname}:{parts.port or 6379}" if parts.hostname else parts.path
    client: Any = Redis.from_url(  # pyright: ignore[reportUnknownMemberType]
        url, socket_timeout=REDIS_TIMEOUT_S, socket_connect_timeout=REDIS_TIMEOUT_S
    )
    try:
        client.ping()
    except (RedisError, OSError) as error:
        return "fail", (
            f"{str(error).rstrip('.')}. Start Redis, or correct EMBEDWAY_REDIS_URL. Until then "
            "each gateway allows a share of every rate limit."
        )
    finally:
        client.close()
    return "ok", f"{address} answers"


def _disk(setup: Setup) -> DoctorFinding:
    settings = setup.settings
    folder = next(each for each in (settings.data_dir, *settings.data_dir.parents) if each.exists())
    free = shutil.disk_usage(folder).free
    detail = f"{free // 2**20} MiB free for {settings.data_dir}"
    if free < MIN_FREE_BYTES:
        return "fail", (
            f"{detail}. Free some: without it the gateway can bill nothing, so it refuses requests."
        )
    return "ok", detail


def _weights(setup: Setup) -> DoctorFinding:
    folder = setup.settings.cache_dir
    if missing := [each.id for each in setup.local_models if not setup.has_weights(each)]:
        return "fail", f"{', '.join(missing)} not in {folder}. Run: embedway models pull"
    return "ok", f"in {folder}"


def _providers(setup: Setup) -> DoctorFinding:
    providers = setup.providers
    if missing := incomplete_providers(setup.loaded):
        return "fail", " ".join(missing)
    names = ", ".join(f"{each.name} ({each.origin})" for each in providers)
    if not names:
        return "ok", "none but this gateway"
    url = base_url(setup.settings)
    calls = _count_refused_calls(url)
    if refusing := [each.name for each in providers if calls[each.name]]:
        return "warn", (
            f"Since the gateway on {url} started, {', '.join(refusing)} refused a key in "
            f"{count_of(sum(calls[name] for name in refusing), 'call')}. Find out which: "
            "embedway doctor --providers"
        )
    return "ok", f"{names}; to test their keys: embedway doctor --providers"


def _catalog(setup: Setup) -> DoctorFinding:
    used = setup.catalog_in_use
    return ("warn", used.problem) if used.problem else ("ok", used.described)


def _models(setup: Setup) -> DoctorFinding:
    if gone := notices.retired(setup.catalog, today()):
        return "fail", gone
    warnings = (notices.retiring(setup.catalog, today()), notices.unpriced(setup.catalog))
    if any(warnings):
        return "warn", " ".join(filter(None, warnings))
    return "ok", "each has a price, or runs here"


def _names(setup: Setup) -> DoctorFinding:
    unknown = [each for each in CLIENT_DEFAULTS if setup.catalog.find(each) is None]
    if not unknown:
        return "ok", f"{' and '.join(CLIENT_DEFAULTS)}, the defaults of many clients, have a model"
    file = setup.loaded.file or config.DEFAULT_CONFIG
    where = f"below [aliases] in {file}" if setup.settings.aliases else f"to {file}"
    stands_for = ", then ".join(setup.catalog.aliases[AUTO])
    header = [] if setup.settings.aliases else ["[aliases]"]
    return "ok", "\n".join(
        [
            f"Clients that ask for {' or '.join(unknown)} unless told otherwise get a 404 here. To "
            f"answer them with {stands_for}, add {where}:",
            *header,
            *(f'{each} = "{AUTO}"' for each in unknown),
            "Such vectors cannot be compared with OpenAI's, and may be of another width.",
        ]
    )


def _spaces(setup: Setup) -> DoctorFinding:
    try:
        error = notices.drifted(setup.spaces.drifted_ids())
    except DatabaseMissing:
        return "ok", "nothing has been proven yet"
    return ("fail", error) if error else ("ok", "nothing has drifted")


def _webhooks(setup: Setup) -> DoctorFinding:
    names = [each.name for each in read_webhooks(setup.loaded)]
    if not names:
        return "ok", "none"
    with suppress(DatabaseMissing):
        summaries = read_summaries(setup.store.database, names)
        if given_up := [
            f"{count_of(each.failed, 'event')} to {name}"
            for name, each in summaries.items()
            if each.failed
        ]:
            return "warn", (
                f"In the last days these were given up: {', '.join(given_up)}. To see why: "
                "embedway webhooks list"
            )
    return "ok", f"{', '.join(names)}; to test one: embedway webhooks test {names[0]}"


def _files(setup: Setup) -> DoctorFinding:
    if warning := notices.readable(setup.loaded):
        return "warn", warning
    return "ok", "no secret is in a file that everybody can read"


def _precision(setup: Setup) -> DoctorFinding:
    from embedway.local.openvino import resolve_precision  # noqa: PLC0415  # the engine: slow

    try:
        cores = count_of(os.cpu_count() or 1, "core")
        return "ok", f"{resolve_precision(setup.settings.precision)} on {cores}"
    except ValueError as error:
        return "fail", str(error)


def _port(setup: Setup) -> DoctorFinding:
    settings = setup.settings
    try:
        bind(settings).close()
    except AddressError as error:
        url = base_url(settings)
        if is_answering(url):
            return "ok", f"a gateway is ready on {url}"
        if is_answering(url, page="livez", status="alive"):
            return "fail", (
                f"A gateway is on {url}, but it is not ready: {url}/readyz and its log say why."
            )
        return "fail", str(error)
    return "ok", f"{settings.port} is free"


def _count_refused_calls(url: str) -> Counter[str]:
    """Return how many calls each provider refused because of the key, by the gateway's metrics."""
    from prometheus_client.parser import text_string_to_metric_families  # noqa: PLC0415  # slow

    calls = Counter[str]()
    try:
        for family in text_string_to_metric_families(fetch_page(f"{url}/metrics").decode()):
            for each in family.samples:
                if each.name == PROVIDER_CALLS and each.labels["outcome"] == "credentials":
                    calls[each.labels["provider"]] = int(each.value)
    except (OSError, ValueError, HTTPException):
        pass  # no gateway runs there, which the check `port` reports
    return calls


CHECKS: dict[str, Callable[[Setup], DoctorFinding]] = {
    "data": _data,
    "redis": _redis,
    "disk": _disk,
    "weights": _weights,
    "precision": _precision,
    "providers": _providers,
    "catalog": _catalog,
    "models": _models,
    "names": _names,
    "spaces": _spaces,
    "webhooks": _webhooks,
    "files": _files,
    "port": _port,
}
