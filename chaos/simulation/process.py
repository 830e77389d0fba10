"""Runs simulated processes, with tasks and threads, on one event loop with a virtual clock.

What runs in a thread of the real gateway runs in a greenlet here, so only one thing runs at a time
and the order is the same in each run. A killed process loses its tasks and threads where they
stand, as by `kill -9`. Nothing here knows the gateway.
"""

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import Context, ContextVar
from typing import Any

from greenlet import GreenletExit, getcurrent, greenlet

from chaos.simulation.virtual_time import VirtualTimeLoop
from embedway.concurrency.threads import Threads

PROCESS: ContextVar["Process | None"] = ContextVar("process", default=None)
"""The process that the running code belongs to; None outside the simulated processes."""


OUTSIDE = contextvars.copy_context()
"""The context of what belongs to no process."""


class _Task(asyncio.Task[Any]):
    """A task whose place in a set does not depend on its address."""

    def __init__(self, coro: Coroutine[Any, Any, Any], *, loop: "ProcessLoop", **more: Any) -> None:
        self.number = loop.next_number()
        context = more.get("context")
        self.process = context.get(PROCESS) if context else PROCESS.get()
        super().__init__(coro, loop=loop, **more)
        if self.process is not None and not self.process.is_alive:
            bury(self)

    def __hash__(self) -> int:
        return self.number


class _Future(asyncio.Future[Any]):
    """A future whose place in a set does not depend on its address."""

    def __init__(self, *, loop: "ProcessLoop") -> None:
        self.number = loop.next_number()
        self.process = PROCESS.get()
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self.number


class ProcessLoop(VirtualTimeLoop):
    """An event loop that runs tasks and threads of several simulated processes."""

    def __init__(self) -> None:
        super().__init__()
        self._number = 0
        self._main = getcurrent()
        self.set_task_factory(lambda loop, coro, **more: _Task(coro, loop=loop, **more))

    def next_number(self) -> int:
        """Return a number that no earlier task and no earlier future has."""
        self._number += 1
        return self._number

    def create_future(self) -> asyncio.Future[Any]:
        """Return a new future."""
        return _Future(loop=self)

    def call_soon(
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """Call back in the next turn, unless the process is dead."""
        process = context.get(PROCESS) if context else PROCESS.get()
        handle = super().call_soon(callback, *args, context=context)
        if process is not None and not process.is_alive:
            handle.cancel()
        return handle

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:  # fmt: skip
        """Call back at that time, unless the process is dead."""
        process = context.get(PROCESS) if context else PROCESS.get()
        handle = super().call_at(when, callback, *args, context=context)
        if process is not None and not process.is_alive:
            handle.cancel()
        return handle

    def call_soon_threadsafe(
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """Call back in the next turn: there are no threads that it could not be safe for."""
        return self.call_soon(callback, *args, context=context)

    def run_in_executor(
        self, executor: ThreadPoolExecutor | None, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Run `func` in a simulated thread, at most as many at a time as `executor` has."""
        process = PROCESS.get()
        assert process is not None
        future = self.create_future()
        process.pool(executor).submit(lambda: func(*args), future)
        return future

    def start_greenlet(self, run: Callable[[], None]) -> greenlet:
        """Run `run` in a greenlet of the running code's process, from the next turn on."""
        started = greenlet(run, parent=self._main)
        started.gr_context = contextvars.copy_context()
        process = PROCESS.get()
        if process is not None:
            process.greenlets.append(started)
        self.call_soon(self.resume, started)
        return started

    def resume(self, waiting: greenlet) -> None:
        """Let a greenlet go on until it waits again."""
        if not waiting.dead:
            waiting.switch()

    def wake(self, waiting: greenlet) -> None:
        """Resume a greenlet of any process in the next turn."""
        if waiting.gr_context is not None:
            self.call_soon(self.resume, waiting, context=waiting.gr_context.copy())

    def wait(self) -> None:
        """Wait, in a greenlet, until somebody resumes it.

        Raises:
            GreenletExit: Its process is dead.
        """
        process = PROCESS.get()
        if process is not None and not process.is_alive:
            raise GreenletExit
        self._main.switch()

    def sleep(self, seconds: float) -> None:
        """Wait, in a greenlet, for that long."""
        self.call_later(seconds, self.resume, getcurrent())
        self.wait()


class _Pool:
    """The threads of one executor."""

    def __init__(self, loop: ProcessLoop, threads: int) -> None:
        self._loop = loop
        self._free = threads
        self._waiting: deque[tuple[Callable[[], Any], asyncio.Future[Any]]] = deque()

    def submit(self, work: Callable[[], Any], future: asyncio.Future[Any]) -> None:
        self._waiting.append((work, future))
        self._start()

    def _start(self) -> None:
        while self._free and self._waiting:
            work, future = self._waiting.popleft()
            if not future.cancelled():
                self._free -= 1
                self._loop.start_greenlet(lambda work=work, future=future: self._run(work, future))

    def _run(self, work: Callable[[], Any], future: asyncio.Future[Any]) -> None:
        result = error = None
        try:
            result = work()
        except GreenletExit:
            raise
        except BaseException as failure:  # noqa: BLE001  # as a thread does, for who waits
            error = failure
        self._free += 1
        self._start()
        if future.done():
            pass  # nobody waits any more
        elif error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)


class _Condition:
    """A condition without a lock, because only one thing runs at a time."""

    def __init__(self, loop: ProcessLoop) -> None:
        self._loop = loop
        self._waiting: deque[greenlet] = deque()

    def __enter__(self) -> bool:
        return True

    def __exit__(self, *_: object) -> None:
        pass

    def wait(self) -> bool:
        self._waiting.append(getcurrent())
        self._loop.wait()
        return True

    def notify(self) -> None:
        if self._waiting:
            self._loop.call_soon(self._loop.resume, self._waiting.popleft())


class _Thread:
    def __init__(self, loop: ProcessLoop, run: Callable[[], None]) -> None:
        self._loop = loop
        self._joining: list[greenlet] = []
        self._greenlet = loop.start_greenlet(lambda: self._run(run))

    def _run(self, run: Callable[[], None]) -> None:
        run()
        for each in self._joining:
            self._loop.call_soon(self._loop.resume, each)

    def is_alive(self) -> bool:
        return not self._greenlet.dead

    def join(self) -> None:
        if self.is_alive():
            self._joining.append(getcurrent())
            self._loop.wait()


class SimulatedThreads(Threads):
    """The threads of a simulated process."""

    def __init__(self, loop: ProcessLoop) -> None:
        self._loop = loop

    def start(self, run: Callable[[], None], *, name: str) -> _Thread:  # noqa: ARG002
        """Run `run` in a greenlet."""
        return _Thread(self._loop, run)

    def condition(self) -> _Condition:
        """Return a new condition."""
        return _Condition(self._loop)

    def now_s(self) -> float:
        """Return the virtual time, in seconds."""
        return self._loop.time()

    def sleep(self, seconds: float) -> None:
        """Let virtual time pass."""
        self._loop.sleep(seconds)


class Process:
    """A simulated process. What starts in its `context` belongs to it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_alive = True
        self.loop = running_loop()
        self.greenlets: list[greenlet] = []
        self.context = contextvars.copy_context()
        self.context.run(PROCESS.set, self)
        self._pools: dict[ThreadPoolExecutor | None, _Pool] = {}

    def start(
        self, work: Coroutine[Any, Any, Any], *, context: Context | None = None
    ) -> asyncio.Task[Any]:
        """Run `work` as a task of this process; `context` is a copy of the process's own."""
        return self.loop.create_task(work, context=context or self.context.copy())

    def pool(self, executor: ThreadPoolExecutor | None) -> _Pool:
        """Return the threads of an executor."""
        pool = self._pools.get(executor)
        if pool is None:
            threads = executor._max_workers if executor else 4
            pool = self._pools[executor] = _Pool(self.loop, threads)
        return pool

    def tasks(self) -> list[asyncio.Task[Any]]:
        """Return the tasks that have not ended, oldest first."""
        found = [each for each in asyncio.all_tasks(self.loop) if each.process is self]
        return sorted(found, key=hash)

    def kill(self) -> None:
        """End the process at once. Nothing of it runs any more, not even its clean-up."""
        self.is_alive = False
        for handle in (*self.loop._ready, *self.loop._scheduled):
            if handle._context.get(PROCESS) is self:
                handle.cancel()
        for each in self.greenlets:
            if not each.dead:
                each.throw(GreenletExit)
        tasks = self.tasks()
        for each in tasks:
            self.context.copy().run(bury, each)
        self.greenlets.clear()


def bury(task: asyncio.Task[Any]) -> None:
    """Make a task of a dead process one that never runs again.

    Python closes its coroutine sooner or later, so do it now. What that calls is in the memory of a
    dead process.
    """
    task._log_destroy_pending = False
    asyncio.tasks._unregister_task(task)
    with suppress(BaseException):  # a dead process tells nobody
        task.get_coro().close()


def running_loop() -> ProcessLoop:
    """Return the loop of the simulation."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, ProcessLoop)
    return loop
