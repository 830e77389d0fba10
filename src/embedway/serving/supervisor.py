"""Runs one gateway in several worker processes, which answer at one address.

The supervisor answers no requests. It starts the workers, and one process that runs the local
models for all of them; starts again what dies; and has the workers reload, drain or make way for
new ones. `docs/decisions/0029-workers.md` explains the choices.
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector

from embedway.app import log_reload, read_new_configuration
from embedway.config.configuration import Configuration
from embedway.core.configuration_change import ConfigurationChange
from embedway.core.errors import EmbedwayError, ServiceOverloaded
from embedway.generation import find_servers
from embedway.observe.metric_sums import Snapshot, Sums, only_counts
from embedway.ratelimits.shared_windows import create_memory
from embedway.serving.address import BACKLOG, divide, listen, stop_listening
from embedway.serving.channel import Channel, ChannelClosed, OrderFailed
from embedway.serving.hangup import Hangups
from embedway.serving.orders import ModelStart, WorkerStart
from embedway.serving.server import grace_of, on_signals, reload_on

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 30.0
"""The pause before a process is started again doubles from the first to the longest."""
LASTING_S = 10.0
"""A process that lived this long is started again without a pause."""
COLLECT_S = 5.0
"""How often to collect metrics, so that a worker that is killed takes no more with it."""
ANSWER_S = 2.0
"""The longest to wait for the metrics of a process. Then its last ones are used."""
LEAVE_S = 60.0
"""The longest that a worker may take to close, once its last request should have been answered."""
SWITCH_S = 30.0
"""A worker that does not use a new configuration for so long is replaced."""

_log = structlog.get_logger("embedway.serve")


class StartError(Exception):
    """The gateway cannot start; the message says why."""


class Child:
    """A process that this one started."""

    def __init__(self, process: asyncio.subprocess.Process, channel: Channel) -> None:
        self.process = process
        self.channel = channel
        self.place = 0
        """The number of the socket that it accepts connections from, if it is a worker."""
        self.started_s = time.monotonic()
        self.is_leaving = False
        """Whether it was told to end."""
        self.snapshot: Snapshot = ()
        """Its metrics, as last collected."""

    async def ask(self, order: str, content: Any = None) -> Any:
        """Give an order, and return the answer; `Channel.ask` says what it raises."""
        return await self.channel.ask(order, content)

    async def collect(self) -> Snapshot:
        """Return its metrics, as they are or were last."""
        with suppress(ChannelClosed, RuntimeError, TimeoutError):
            async with asyncio.timeout(ANSWER_S):
                self.snapshot = await self.ask("snapshot")
        return self.snapshot

    def kill(self) -> None:
        """End it at once, if it has not ended."""
        if self.process.returncode is None:
            with suppress(ProcessLookupError):
                self.process.kill()


class Supervisor:
    """Starts, watches and ends the processes of one gateway."""

    def __init__(self, configuration: Configuration, bound: socket.socket, *, workers: int) -> None:
        """Prepare to serve on a bound socket with so many workers."""
        self.configuration = configuration
        """The configuration in force."""
        self._bound = bound
        self._count = workers
        self._sockets: list[socket.socket] = []
        """One for each worker. They stay open while workers come and go, so that connections that
        have not been accepted wait for the next one."""
        self._workers: list[Child] = []
        """The workers that accept connections."""
        self._models: Child | None = None
        """The process of the local models, once it has loaded them."""
        self._starting: set[Child] = set()
        self._counted: set[Child] = set()
        """The processes whose metrics are not in `_ended` yet."""
        self._tasks: set[asyncio.Task[Any]] = set()
        self._changing = asyncio.Lock()
        """Held while workers are replaced or reloaded."""
        self._is_stopping = False
        self._memory = create_memory()
        self._ended: Snapshot = ()
        """What the workers counted that have ended."""
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        Gauge(
            "embedway_workers", "Worker processes that answer requests.", registry=registry
        ).set_function(lambda: len(self._workers))
        self._restarts = Counter(
            "embedway_restarts",
            "Processes of this gateway that died and were started again, by what they did.",
            ["process"],
            registry=registry,
        )

    async def run(
        self, hangups: Hangups, on_ready: Callable[[Configuration, Sequence[str]], None]
    ) -> int:
        """Serve until a signal stops it and all workers have drained; return the exit status.

        Calls `on_ready` with the configuration and the ids of drifted deployments once the gateway
        answers. Each of `hangups` reloads the configuration; SIGUSR2 replaces the workers.

        Raises:
            StartError: A process cannot start; the message says why.
            AddressError: Another process listens on the address.
        """
        hangup = hangups.watch()
        stopping = on_signals(self._kill_all)
        replacing = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, replacing.set)
        with ExitStack() as files:
            temporary = tempfile.TemporaryDirectory(prefix="embedway-", ignore_cleanup_errors=True)
            folder = files.enter_context(temporary)
            self._models_path = f"{folder}/models"
            self._models_socket = files.enter_context(socket.socket(socket.AF_UNIX))
            self._models_socket.bind(self._models_path)
            self._models_socket.listen(BACKLOG)
            self._sockets = divide(self._bound, self._count)
            self._bound.close()
            try:
                starting = self._do(self._start_all())
                await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
                if not starting.done():
                    starting.cancel()
                    return 0
                drifted = starting.result()
                on_ready(self.configuration, drifted)
                self._do(reload_on(hangup, hangups, self.reload, stopping))
                self._do(self._replace_on(replacing))
                self._do(self._collect_regularly())
                await stopping
                status = await self._drain(stopping.result())
            finally:
                self._is_stopping = True
                self._kill_all()
                os.close(self._memory)
        _log.info("stopped")
        return status

    async def reload(
        self,
        *,
        dry_run: bool = False,
        approve: Callable[[Sequence[ConfigurationChange]], Awaitable[object]] | None = None,
    ) -> Sequence[ConfigurationChange]:
        """Reload the configuration of all workers or of none, as `Gateway.reload` describes."""
        async with self._changing:
            if self._is_stopping:
                raise ServiceOverloaded("This gateway is stopping, so it reloads nothing.")
            configuration, read = await read_new_configuration(self.configuration)
            workers = list(self._workers)
            if not workers:
                raise ServiceOverloaded(
                    "No worker runs just now, so nothing is reloaded. Try again."
                )
            changes: Sequence[ConfigurationChange] = []
            try:
                for prepared in await _gather(
                    each.ask("prepare", (configuration, read)) for each in workers
                ):
                    changes = prepared or changes
                if dry_run:
                    return changes
                if approve:
                    await approve(changes)
                self.configuration = configuration
                await _gather(self._switch(each) for each in workers)
            finally:
                # Those that use the new one have nothing to forget.
                await _gather(self._forget(each) for each in workers)
        log_reload(configuration, changes)
        return changes

    # Starting.

    async def _start_all(self) -> Sequence[str]:
        """Start everything; return the ids of the drifted deployments."""
        self.configuration = await find_servers(self.configuration)
        loaded = asyncio.get_running_loop().create_future()
        self._has_models = bool(self.configuration.catalog.local_models())
        if self._has_models:
            self._do(self._keep_models(loaded))
        else:
            loaded.set_result(None)
        try:
            _, *opened = await asyncio.gather(
                loaded, *(self._open_worker(place) for place in range(self._count))
            )
            for worker, _ in opened:
                await self._serve(worker)
        except OrderFailed as error:
            raise StartError(str(error)) from None
        except ChannelClosed:
            raise StartError("A process ended while it started. The log says why.") from None
        return opened[0][1]

    async def _spawn(self, module: str, answer: Any, descriptors: Sequence[int]) -> Child:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)  # noqa: FBT003
        channel = Channel(answer)
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", f"embedway.serving.{module}", str(theirs.fileno())),
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), *descriptors),
                # Ctrl-C in a terminal is for this process.
                start_new_session=True,
            )
        await channel.open(ours)
        child = Child(process, channel)
        self._starting.add(child)
        return child

    async def _open_worker(self, place: int) -> tuple[Child, Sequence[str]]:
        """Start a worker up to when it can serve; return it and the drifted deployments.

        It will accept connections from the socket at `place`.

        Raises:
            OrderFailed: It cannot start.
            ChannelClosed: It has ended.
        """

        async def answer(question: str, content: Any) -> Any:
            return await self._answer(child, question, content)

        descriptors = self._sockets[place].fileno(), self._memory
        child = await self._spawn("worker", answer, descriptors)
        child.place = place
        start = WorkerStart(
            configuration=self.configuration,
            workers=self._count,
            listening=descriptors[0],
            memory=descriptors[1],
            models=self._models_path if self._has_models else None,
        )
        try:
            return child, await child.ask("open", start)
        except BaseException:
            self._give_up(child)
            raise

    async def _serve(self, worker: Child) -> None:
        """Let a worker accept connections.

        Raises:
            ChannelClosed: It has ended.
            AddressError: Another process listens on the address.
        """
        try:
            listen(self._sockets[worker.place], self.configuration.settings)
            await worker.ask("serve")
        except BaseException:
            self._give_up(worker)
            raise
        self._starting.discard(worker)
        self._workers.append(worker)
        self._counted.add(worker)
        self._do(self._watch(worker))

    def _give_up(self, child: Child) -> None:
        """End a process that does not start."""
        child.kill()
        self._starting.discard(child)

    def _bury(self, child: Child) -> None:
        """Keep what a process that has ended has counted."""
        self._ended = Sums([self._ended, only_counts(child.snapshot)], {}).collect()
        self._counted.discard(child)

    async def _watch(self, worker: Child) -> None:
        """Wait until a worker ends, and start another one unless it was told to end."""
        await worker.process.wait()
        await worker.channel.closed.wait()
        if worker in self._workers:
            self._workers.remove(worker)
        self._bury(worker)
        if worker.is_leaving or self._is_stopping:
            return
        _log.error("worker died", pid=worker.process.pid, status=worker.process.returncode)
        self._restarts.labels("worker").inc()
        pause_s = _first_pause_s(worker)
        while True:
            await asyncio.sleep(pause_s)
            pause_s = _next_pause_s(pause_s)
            async with self._changing:
                is_taken = any(each.place == worker.place for each in self._workers)
                if self._is_stopping or is_taken or await self._try_start(worker.place):
                    return
            stop_listening(self._sockets[worker.place])

    async def _try_start(self, place: int) -> bool:
        """Start a worker at a place, and return whether it serves; log why if it does not."""
        try:
            worker, _ = await self._open_worker(place)
            await self._serve(worker)
        except (OrderFailed, ChannelClosed, OSError) as error:
            if not self._is_stopping:
                _log.error("worker not started", reason=str(error) or "it ended while it started")
            return False
        _log.info("worker started", pid=worker.process.pid)
        return True

    async def _keep_models(self, loaded: asyncio.Future[None]) -> None:
        """Run the process of the local models, again and again.

        `loaded` gets a result when the first one has loaded them, or why it cannot.
        """
        pause_s = FIRST_PAUSE_S
        while not self._is_stopping:
            try:
                child = await self._open_models()
            except (OrderFailed, ChannelClosed, OSError) as error:
                if not loaded.done():
                    loaded.set_exception(error)
                    return
                if not self._is_stopping:
                    _log.error("local models not started", reason=str(error))
            else:
                if loaded.done():
                    _log.info("local models started", pid=child.process.pid)
                else:
                    loaded.set_result(None)
                await child.process.wait()
                self._models = None
                self._bury(child)
                if self._is_stopping:
                    return
                _log.error("local models died", pid=child.process.pid)
                self._restarts.labels("models").inc()
                pause_s = _first_pause_s(child)
            await asyncio.sleep(pause_s)
            pause_s = _next_pause_s(pause_s)

    async def _open_models(self) -> Child:
        """Start the process of the local models, and return it once it has loaded them.

        Raises:
            OrderFailed: It cannot load them.
            ChannelClosed: It has ended.
        """
        listening = self._models_socket.fileno()
        child = await self._spawn("model_process", self._refuse, [listening])
        start = ModelStart(
            configuration=self.configuration,
            listening=listening,
            folder=str(Path(self._models_path).parent),
        )
        try:
            await child.ask("open", start)
        except BaseException:
            self._give_up(child)
            raise
        self._starting.discard(child)
        self._counted.add(child)
        self._models = child
        return child

    # Serving.

    async def _answer(self, worker: Child, question: str, content: Any) -> Any:
        match question:
            case "reload":
                number, dry_run = content
                return await self.reload(
                    dry_run=dry_run,
                    approve=lambda changes: worker.ask("approve", (number, changes)),
                )
            case "metrics":
                return await self._collect()
            case "last words":
                worker.snapshot = content
            case _:
                raise ValueError(question)
        return None

    @staticmethod
    async def _refuse(question: str, content: Any) -> Any:
        raise ValueError(f"{question}: {content!r}")

    async def _collect(self) -> Sequence[Snapshot]:
        # What ends while the others are asked is among the answers, so not yet among these.
        ended = self._ended
        snapshots = await asyncio.gather(*(each.collect() for each in self._counted))
        return [*snapshots, list(self._registry.collect()), ended]

    async def _collect_regularly(self) -> None:
        while True:
            await asyncio.sleep(COLLECT_S)
            await self._collect()

    async def _switch(self, worker: Child) -> None:
        """Put the prepared configuration in force, or replace the worker by one that uses it."""
        try:
            async with asyncio.timeout(SWITCH_S):
                await worker.ask("use")
        except ChannelClosed:
            pass  # the next one begins with the new configuration
        except Exception as error:  # noqa: BLE001  # whatever it is, no worker may keep the old one
            if self._is_stopping:
                return
            _log.error("worker ended, for it did not reload", reason=repr(error))
            worker.kill()

    @staticmethod
    async def _forget(worker: Child) -> None:
        with suppress(ChannelClosed, RuntimeError):
            await worker.ask("forget")

    async def _replace_on(self, replacing: asyncio.Event) -> None:
        """Replace all workers, one by one, whenever `replacing` is set."""
        while True:
            await replacing.wait()
            replacing.clear()
            _log.info("replacing workers", count=len(self._workers))
            async with self._changing:
                for old in list(self._workers):
                    if self._is_stopping or not await self._try_start(old.place):
                        break
                    if old in self._workers:  # it may have died
                        await self._send_away(old)
                else:
                    _log.info("workers replaced")

    async def _send_away(self, worker: Child) -> None:
        """Have a worker finish what is in flight and end, while others accept connections."""
        worker.is_leaving = True
        self._workers.remove(worker)
        settings = self.configuration.settings
        longest_s = settings.drain_s + settings.body_timeout_s + settings.request_timeout_s
        with suppress(ChannelClosed, TimeoutError):
            async with asyncio.timeout(longest_s + LEAVE_S):
                await worker.ask("leave", settings.drain_s)
                await worker.process.wait()
        worker.kill()

    # Ending.

    async def _drain(self, number: signal.Signals) -> int:
        self._is_stopping = True
        for each in self._sockets:  # the workers have theirs
            each.close()
        grace_s = grace_of(number, self.configuration.settings)
        _log.info("draining", workers=len(self._workers), grace_s=grace_s)
        workers = list(self._workers)
        for each in self._starting:
            each.kill()
        leaving = [each for each in self._counted if each.is_leaving]
        await _gather(self._tell_to_drain(each, grace_s) for each in workers)
        statuses = await _gather(each.process.wait() for each in (*workers, *leaving))
        if self._models:
            self._models.channel.close()
            await self._models.process.wait()
        if any(statuses):
            _log.error("a worker did not end as it should", statuses=statuses)
        return 1 if any(statuses) else 0

    @staticmethod
    async def _tell_to_drain(worker: Child, grace_s: float) -> None:
        with suppress(ChannelClosed):
            await worker.ask("drain", grace_s)

    def _kill_all(self) -> None:
        for each in self._starting | self._counted:
            each.kill()

    def _do(self, work: Any) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


async def _gather(work: Any) -> list[Any]:
    """Return all results, or raise the first error once everything has ended."""
    done = await asyncio.gather(*work, return_exceptions=True)
    for each in done:
        if isinstance(each, EmbedwayError):
            raise each
    for each in done:
        if isinstance(each, BaseException) and not isinstance(each, ChannelClosed):
            raise each
    return [None if isinstance(each, ChannelClosed) else each for each in done]


def _first_pause_s(child: Child) -> float:
    return 0.0 if time.monotonic() - child.started_s > LASTING_S else FIRST_PAUSE_S


def _next_pause_s(pause_s: float) -> float:
    return min(max(2 * pause_s, FIRST_PAUSE_S), LONGEST_PAUSE_S)
