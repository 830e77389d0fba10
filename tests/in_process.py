"""Opens a gateway in the process of the tests, so that they can set its clocks."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from embedway import app
from embedway.app import Gateway
from embedway.config.configuration import read_configuration
from embedway.config.settings import LoadedSettings, Settings
from embedway.process_parts import Clocks


@asynccontextmanager
async def running(
    values: Mapping[str, Any],
    *,
    folder: Path,
    now_ms: Callable[[], int],
    now_s: Callable[[], float],
) -> AsyncGenerator[Gateway]:
    """Open a gateway with these settings, as from an `embedway.toml` in the folder."""
    origins = {"providers": "embedway.toml", "models": str(folder / "embedway.toml")}
    quiet = {
        "data_dir": folder / "data",
        "precision": "f32",
        "threads": 1,
        "local_servers": False,
        "providers_from_environment": False,
    }
    settings = Settings.model_validate({**quiet, **values}, context=origins)
    configuration = read_configuration(LoadedSettings(settings, origins, [], {}))
    clocks = Clocks(now_ms=now_ms, now_s=now_s)
    async with app.open_gateway(configuration, clocks=clocks) as gateway:
        yield gateway


async def settled() -> None:
    """Wait for a gateway's background tasks."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:
        _, pending = await asyncio.wait(others, timeout=20)
        assert not pending
