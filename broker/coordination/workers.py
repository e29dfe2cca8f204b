"""The event loop as coordinators use it: calls after a while, and work in threads."""

import asyncio
from collections.abc import Callable

from kavka.broker.coordination.ownership import Offload
from kavka.broker.coordination.timers import CallLater


def call_later_on(loop: asyncio.AbstractEventLoop) -> CallLater:
    """``loop.call_later`` for calls without arguments."""

    def call_later(delay: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        return loop.call_later(delay, callback)

    return call_later


def offload_from(loop: asyncio.AbstractEventLoop) -> Offload:
    """Work in a thread, whose outcome comes back to ``loop``."""

    def offload(work: Callable[[], int], done: Callable[[int | BaseException], None]) -> None:
        def finished(future: "asyncio.Future[int]") -> None:
            if not future.cancelled():
                error = future.exception()
                done(future.result() if error is None else error)

        loop.run_in_executor(None, work).add_done_callback(finished)

    return offload
