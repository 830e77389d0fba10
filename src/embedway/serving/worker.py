"""One of several processes that answer at the same address: `python -m embedway.serving.worker`."""

import asyncio
import socket
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from itertools import count
from typing import Any

import structlog
from sqlalchemy.exc import SQLAlchemyError

from embedway import app
from embedway.admin.configuration import Approve
from embedway.app import Gateway, PreparedReload
from embedway.config.schema import ConfigError
from embedway.config.telemetry import read_telemetry
from embedway.core.configuration_change import ConfigurationChange
from embedway.core.errors import EmbedwayError, ServiceOverloaded
from embedway.core.extras import MissingExtra
from embedway.local.weights import WeightsError
from embedway.observe.metric_sums import Snapshot
from embedway.process_parts import Siblings
from embedway.serving.channel import Channel, ChannelClosed, OrderFailed
from embedway.serving.child import configure_child_logs, run_child
from embedway.serving.orders import WorkerOrder, WorkerStart
from embedway.serving.server import GatewayServer, limit_shutdown, tune_interpreter
from embedway.storage import database
from embedway.storage.database import DatabaseError

_log = structlog.get_logger("embedway.serve")


class Worker:
    """A gateway that does what its supervisor says, and drains when that is gone."""

    def __init__(self, dropped_lines: Callable[[], int]) -> None:
        self._dropped_lines = dropped_lines
        self._channel = Channel(self._answer)
        self._parts = AsyncExitStack()
        self._prepared_parts = AsyncExitStack()
        self._prepared: PreparedReload | None = None
        self._approvals: dict[int, Approve] = {}
        """Who has to approve the reloads that this worker asked for."""
        self._reloads = count()
        self._gateway: Gateway
        self._server: GatewayServer | None = None
        self._start: WorkerStart
        self._ending: asyncio.Future[Callable[[GatewayServer], Any]]

    async def run(self, end: socket.socket) -> None:
        """Do what comes from the supervisor, until it is time to end."""
        self._ending = asyncio.get_running_loop().create_future()
        closed = asyncio.ensure_future(self._channel.closed.wait())
        await self._channel.open(end)
        await asyncio.wait({closed, self._ending}, return_when=asyncio.FIRST_COMPLETED)
        if self._server:
            if not self._ending.done():
                _log.error("supervisor gone", then="finishing requests in flight, then ending")
                settings = self._gateway.current.configuration.settings
                await self._server.drain(grace_s=settings.drain_s)
            else:
                await self._ending.result()(self._server)
            with suppress(ChannelClosed):
                await self._channel.ask("last words", self._gateway.metrics.snapshot())
            limit_shutdown()
        await self._prepared_parts.aclose()
        await self._parts.aclose()
        closed.cancel()

    async def _answer(self, order: WorkerOrder, content: Any) -> Any:
        match order:
            case "open":
                return await self._open(content)
            case "serve":
                self._serve()
            case "snapshot":
                return self._gateway.metrics.snapshot()
            case "drain" | "leave":
                end = GatewayServer.drain if order == "drain" else GatewayServer.leave
                if not self._ending.done():
                    self._ending.set_result(lambda server: end(server, grace_s=content))
            case _:
                return await self._answer_about_reload(order, content)
        return None

    async def _answer_about_reload(self, order: WorkerOrder, content: Any) -> Any:
        match order:
            case "prepare":
                return await self._prepare(*content)
            case "use":
                await self._use()
            case "forget":
                await self._forget()
            case "approve":
                number, changes = content
                if number in self._approvals:
                    await self._approvals[number](changes)
            case _:
                raise ValueError(order)
        return None

    async def _open(self, start: WorkerStart) -> Sequence[str]:
        self._start = start
        loaded = start.configuration.loaded
        configure_child_logs(loaded.settings)
        siblings = Siblings(
            workers=start.workers,
            memory=start.memory,
            models=start.models,
            collect_metrics=self._collect_metrics,
            reload=self._reload,
        )
        opening = app.open_gateway(
            start.configuration,
            dropped_lines=self._dropped_lines,
            telemetry=read_telemetry(loaded),
            siblings=siblings,
        )
        try:
            self._gateway = await self._parts.enter_async_context(opening)
        except (
            *(ConfigError, DatabaseError, WeightsError, MissingExtra, EmbedwayError, OSError),
        ) as error:
            raise OrderFailed(str(error)) from None
        except SQLAlchemyError as error:
            raise OrderFailed(f"The database failed: {database.explain(error)}") from None
        self._gateway.work_on_batches()
        return self._gateway.current.spaces.drifted_ids()

    def _serve(self) -> None:
        tune_interpreter()
        listening = socket.socket(fileno=self._start.listening)
        self._server = GatewayServer(self._gateway, listening)
        self._server.failure.add_done_callback(self._end_if_broken)

    def _end_if_broken(self, serving: asyncio.Future[None]) -> None:
        if not self._ending.done() and not self._channel.closed.is_set():
            _log.error("server broke", cause=repr(serving.exception()))
            self._ending.set_result(lambda _: asyncio.sleep(0))

    async def _prepare(self, configuration: Any, read: Any) -> Sequence[ConfigurationChange]:
        preparing = self._gateway.prepare(configuration, read)
        self._prepared = await self._prepared_parts.enter_async_context(preparing)
        return self._prepared.changes

    async def _use(self) -> None:
        if self._prepared:
            await self._prepared.use()
        await self._forget()

    async def _forget(self) -> None:
        self._prepared = None
        await self._prepared_parts.aclose()

    async def _reload(
        self, *, dry_run: bool = False, approve: Approve | None = None
    ) -> Sequence[ConfigurationChange]:
        """Have all workers reload their configuration, as `Gateway.reload` describes."""
        number = next(self._reloads)
        if approve:
            self._approvals[number] = approve
        try:
            return await self._channel.ask("reload", (number, dry_run))
        except ChannelClosed:
            raise ServiceOverloaded("This gateway is stopping, so it reloads nothing.") from None
        finally:
            self._approvals.pop(number, None)

    async def _collect_metrics(self) -> Sequence[Snapshot]:
        return await self._channel.ask("metrics")


if __name__ == "__main__":
    run_child(lambda end, dropped_lines: Worker(dropped_lines).run(end))
