"""`embedway doctor`: says what is missing here, and how to cure it."""

import json
import os
import shutil
from collections.abc import Callable
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, build_opener

import typer
from sqlalchemy.exc import SQLAlchemyError

from embedway.catalog import catalog
from embedway.cli.address import ANSWER_TIMEOUT_S, AddressError, answers, base_url, bind
from embedway.cli.counted import counted
from embedway.cli.terminal import (
    AsJson,
    load_providers,
    load_settings,
    out,
    print_json,
    wheel_of,
)
from embedway.config import settings as config
from embedway.config.models import catalog_of
from embedway.config.providers import incomplete
from embedway.config.settings import ConfigError, Settings
from embedway.config.stores import revealed, store_of
from embedway.core.clock import now_ms
from embedway.local import weights
from embedway.storage import database
from embedway.storage.database import DatabaseError

FREE_BYTES = 500 * 2**20
REDIS_WAIT_S = 2

Finding = tuple[bool, str]
"""Whether all is well, and what was found or how to cure it."""


def doctor(as_json: AsJson = False) -> None:
    """Check that everything the gateway needs is here, and say how to cure what is not.

    Exits with 1 if something is not as it should be, so that a script can ask too.
    """
    settings = load_settings()
    findings = {name: check(settings) for name, check in CHECKS.items()}
    if as_json:
        print_json(
            [{"check": name, "ok": ok, "detail": text} for name, (ok, text) in findings.items()]
        )
    else:
        for name, (ok, text) in findings.items():
            mark = "[green]ok  [/green]" if ok else "[red]fail[/red]"
            out.print(f"{mark} {name:10} ", end="")
            out.print(text, markup=False)
    if not all(ok for ok, _ in findings.values()):
        raise typer.Exit(1)


def _data(settings: Settings) -> Finding:
    try:
        store = store_of(settings)
        working = [key for key in store.keys.all() if key.state(now_ms()) == "active"]
    except DatabaseError as error:
        return False, str(error)
    except SQLAlchemyError as error:
        return False, f"The database failed: {database.explain(error)}"
    store.database.dispose()
    kept = database.shown(store.database) if settings.database_url else settings.data_dir
    return True, f"{kept} opens; working keys: {len(working)}"


def _redis(settings: Settings) -> Finding:
    url = revealed(settings.redis_url)
    if url is None:
        return True, "not set: this gateway counts rate limits alone"
    from redis import Redis, RedisError  # noqa: PLC0415  # slow

    where = urlsplit(url)
    shown = f"{where.hostname}:{where.port or 6379}" if where.hostname else where.path
    client: Any = Redis.from_url(  # pyright: ignore[reportUnknownMemberType]
        url, socket_timeout=REDIS_WAIT_S, socket_connect_timeout=REDIS_WAIT_S
    )
    try:
        client.ping()
    except (RedisError, OSError) as error:
        return False, (
            f"{str(error).rstrip('.')}. Start it, or correct EMBEDWAY_REDIS_URL; until then each "
            "gateway goes on with a share of every rate limit."
        )
    finally:
        client.close()
    return True, f"{shown} answers"


def _disk(settings: Settings) -> Finding:
    folder = next(each for each in (settings.data_dir, *settings.data_dir.parents) if each.exists())
    free = shutil.disk_usage(folder).free
    found = f"{free // 2**20} MiB free for {settings.data_dir}"
    if free < FREE_BYTES:
        return (
            False,
            f"{found}. Make room: without it nothing can be billed, so nothing is answered.",
        )
    return True, found


def _weights(settings: Settings) -> Finding:
    missing = [
        model.id
        for model in catalog.load(eu_native=settings.eu_native).local()
        if not weights.installed(wheel_of(model), settings.cache_dir)
    ]
    if missing:
        return False, f"{', '.join(missing)} not in {settings.cache_dir}. Run: embedway models pull"
    return True, f"in {settings.cache_dir}"


def _providers(_: Settings) -> Finding:
    loaded = config.load()
    try:
        declared = load_providers(loaded)
        catalog_of(loaded.settings, declared)
    except ConfigError as error:
        return False, str(error)
    missing = incomplete(loaded)
    if missing:
        return False, " ".join(missing)
    names = ", ".join(f"{each.name} ({each.origin})" for each in declared)
    return True, names or "none but this gateway"


def _precision(settings: Settings) -> Finding:
    from embedway.local.openvino import resolve_precision  # noqa: PLC0415  # the engine: slow

    try:
        cores = counted(os.cpu_count() or 1, "core")
        return True, f"{resolve_precision(settings.precision)} on {cores}"
    except ValueError as error:
        return False, str(error)


def _port(settings: Settings) -> Finding:
    try:
        bind(settings).close()
    except AddressError as error:
        url = base_url(settings)
        if answers(url):
            return True, f"a gateway is ready on {url}"
        if _lives(url):
            return False, (
                f"A gateway is on {url}, but it is not ready: {url}/readyz and its log say why."
            )
        return False, str(error)
    return True, f"{settings.port} is free"


def _lives(url: str) -> bool:
    """Whether a gateway is there, ready or not."""
    try:
        opener = build_opener(ProxyHandler({}))  # this machine is not behind its own proxy
        with opener.open(f"{url}/livez", timeout=ANSWER_TIMEOUT_S) as answer:
            return json.loads(answer.read(1024)) == {"status": "alive"}
    except (OSError, ValueError, HTTPException):
        return False


CHECKS: dict[str, Callable[[Settings], Finding]] = {
    "data": _data,
    "redis": _redis,
    "disk": _disk,
    "weights": _weights,
    "precision": _precision,
    "providers": _providers,
    "port": _port,
}
