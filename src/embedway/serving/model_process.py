"""Runs the local models for all workers: `python -m embedway.serving.model_process`."""

import asyncio
import shutil
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

from embedway.config.engines import load_encoder
from embedway.config.schema import ConfigError
from embedway.config.telemetry import read_telemetry
from embedway.local.engine import ModelThreads
from embedway.local.frames import BUFFER_BYTES
from embedway.local.model_server import ModelServer
from embedway.local.weights import WeightsError
from embedway.observe.metrics import Metrics
from embedway.observe.otlp import open_tracer
from embedway.process_parts import add_queue_gauges
from embedway.serving.channel import Channel, OrderFailed
from embedway.serving.child import configure_child_logs, run_child
from embedway.serving.orders import ModelStart

CHECK_S = 0.1


class ModelProcess:
    """Runs the local models until the supervisor and all workers have hung up."""

    def __init__(self, dropped_lines: Callable[[], int]) -> None:
        del dropped_lines
        self._channel = Channel(self._answer)
        self._parts = AsyncExitStack()
        self._metrics = Metrics()
        self._server: ModelServer | None = None
        self._folder = ""

    async def run(self, end: socket.socket) -> None:
        """Do what comes from the supervisor, until it is time to end."""
        await self._channel.open(end)
        await self._channel.closed.wait()
        # Workers that have lost their supervisor finish what is in flight.
        while self._server and self._server.connections:  # noqa: ASYNC110  # once, at the end
            await asyncio.sleep(CHECK_S)
        await self._parts.aclose()
        # The supervisor deletes it too.
        if self._folder:
            await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)

    async def _answer(self, order: str, content: Any) -> Any:
        match order:
            case "open":
                return await self._open(content)
            case "snapshot":
                return self._metrics.snapshot()
            case _:
                raise ValueError(order)

    async def _open(self, start: ModelStart) -> None:
        configuration = start.configuration
        settings = configuration.settings
        configure_child_logs(settings)
        self._folder = start.folder
        telemetry = read_telemetry(configuration.loaded)
        await self._parts.enter_async_context(open_tracer(telemetry, self._metrics, {}))
        models: dict[str, ModelThreads] = {}
        for model in configuration.catalog.local_models():
            try:
                encoder = await asyncio.to_thread(load_encoder, model, settings)
            except (ConfigError, WeightsError, OSError) as error:
                raise OrderFailed(str(error)) from None
            on_batch = self._metrics.batch_items.labels(model.id).observe
            models[model.id] = ModelThreads(encoder, on_batch=on_batch)
            self._parts.callback(models[model.id].close)
        add_queue_gauges(self._metrics, models)
        self._server = ModelServer(models)
        listening = socket.socket(fileno=start.listening)
        server = await asyncio.start_unix_server(
            self._server.serve, sock=listening, limit=BUFFER_BYTES
        )
        self._parts.callback(server.close)


if __name__ == "__main__":
    run_child(lambda end, dropped_lines: ModelProcess(dropped_lines).run(end))
