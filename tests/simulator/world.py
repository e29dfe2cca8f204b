"""Virtual time: everything that happens in a simulated cluster, in one order that a seed decides.

Each broker has an event loop of its own, which is a view of the world's one queue: a broker that
has crashed hears of nothing any more, one that is paused hears of everything later.
"""

import asyncio
import contextvars
import heapq
import random
import traceback
from asyncio import events
from collections.abc import Callable, Coroutine
from typing import Any

START_MS = 1_600_000_000_000
CALLS_AT_ONE_MOMENT = 200_000  # more is a loop that does not let time go on


class Trouble(AssertionError):
    """A rule was broken, or something went wrong that must not."""


class World:
    """Time, chance, and what comes next."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self.troubles: list[str] = []
        self.trace: list[str] = []
        self._queue: list[tuple[float, int, asyncio.Handle, Loop]] = []
        self._number = 0
        self._moment = 0

    def note(self, text: str) -> None:
        self.trace.append(f"{self.now:9.4f} {text}")

    def trouble(self, text: str) -> None:
        self.note(f"TROUBLE {text}")
        self.troubles.append(text)

    def add(self, when: float, handle: asyncio.Handle, loop: "Loop") -> None:
        self._number += 1
        heapq.heappush(self._queue, (max(when, self.now), self._number, handle, loop))

    def run(self, until: float, stop: Callable[[], bool] = lambda: False) -> bool:
        """Let time pass up to ``until``, or to when ``stop`` holds; whether it does."""
        while self._queue and self._queue[0][0] <= until:
            when, _, handle, loop = heapq.heappop(self._queue)
            if when > self.now:
                self.now = when
                self._moment = 0
            self._moment += 1
            if self._moment > CALLS_AT_ONE_MOMENT:
                raise Trouble(f"time stands still at {self.now}: {handle!r}")
            loop.run_handle(handle)
            if self.troubles:
                raise Trouble(self.troubles[0])
            if stop():
                return True
        self.now = max(self.now, until)
        return stop()


class LoopClock:
    """The world's time as a broker's clock."""

    def __init__(self, world: World) -> None:
        self._world = world

    def wall_ms(self) -> int:
        return START_MS + int(self._world.now * 1000)

    def monotonic(self) -> float:
        return self._world.now


class Loop(asyncio.AbstractEventLoop):
    """One process's event loop in the world."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.dead = False
        self.paused = False
        self._backlog: list[asyncio.Handle] = []
        self._tasks: list[asyncio.Task[Any]] = []  # kept, or the collector would end them

    # -- life -----------------------------------------------------------------------------

    def kill(self) -> None:
        """Whatever was to happen here does not."""
        self.dead = True
        self._backlog.clear()

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False
        backlog, self._backlog = self._backlog, []
        for handle in backlog:
            self.world.add(self.world.now, handle, self)

    def run_handle(self, handle: asyncio.Handle) -> None:
        if self.dead or handle.cancelled():
            return
        if self.paused:
            self._backlog.append(handle)
            return
        events._set_running_loop(self)
        try:
            handle._run()
        finally:
            events._set_running_loop(None)

    # -- what asyncio asks of a loop --------------------------------------------------------

    def time(self) -> float:
        return self.world.now

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self.world.add(self.world.now, handle, self)
        return handle

    call_soon_threadsafe = call_soon

    def call_at(
        self, when: float, callback: Any, *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self.world.add(when, handle, self)
        return handle

    def call_later(
        self, delay: float, callback: Any, *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.world.now + delay, callback, *args, context=context)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        pass

    def create_future(self) -> "asyncio.Future[Any]":
        return asyncio.Future(loop=self)

    def create_task(
        self, coro: Coroutine[Any, Any, Any], *, name: str | None = None, context: Any = None
    ) -> "asyncio.Task[Any]":
        task = asyncio.Task(coro, loop=self, name=name, context=context)
        self._tasks.append(task)
        if len(self._tasks) > 1000:
            self._tasks = [each for each in self._tasks if not each.done()]
        return task

    def run_in_executor(  # type: ignore[override]
        self, executor: object, func: Callable[..., Any], *args: Any
    ) -> "asyncio.Future[Any]":
        """A thread that needs a moment, and does everything at the end of it."""
        future = self.create_future()

        def work() -> None:
            if future.cancelled():
                return
            try:
                result = func(*args)
            except Exception as error:
                future.set_exception(error)
            else:
                future.set_result(result)

        self.call_later(self.world.random.uniform(0.0001, 0.005), work)
        return future

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if self.dead:
            return
        error = context.get("exception")
        self.world.trouble(f"{self.name}: {context.get('message')}: {error!r}")

    def start(self, coro: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Begin a coroutine from outside."""
        task = contextvars.Context().run(self.create_task, coro)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            where = "".join(traceback.format_exception(error)[-3:])
            self.world.trouble(f"{self.name} failed: {error!r}\n{where}")


class SimWorkers:
    """What the storage layer has threads for, in virtual time (``kavka.storage.workers``)."""

    def __init__(self, name: str, limit: int) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Loop)
        self._loop = loop
        self._ordered = limit == 1
        self._jobs: list[Callable[[], None]] = []

    def submit(self, job: Callable[[], None]) -> None:
        self._jobs.append(job)
        delay = self._loop.world.random.uniform(0.0002, 0.004)
        if self._loop.world.random.random() < 0.02:
            delay += 0.1  # a slow disk
        self._loop.call_later(delay, self._run, job)

    def _run(self, job: Callable[[], None]) -> None:
        if job not in self._jobs:
            return
        if self._ordered:
            while self._jobs:
                first = self._jobs.pop(0)
                first()
                if first is job:
                    return
        else:
            self._jobs.remove(job)
            job()

    def wait(self) -> None:
        while self._jobs:
            self._jobs.pop(0)()

    stop = wait
