"""Waiting for something to become true."""

import asyncio
from collections.abc import Callable

_Waiter = tuple[Callable[[], bool], asyncio.Future[bool]]


class Signal:
    """Tells waiters that what they look at may have changed; each looks for itself."""

    def __init__(self) -> None:
        self._waiters: list[_Waiter] = []

    def fire(self) -> None:
        """Have every waiter look."""
        if not self._waiters:
            return
        waiting: list[_Waiter] = []
        for predicate, future in self._waiters:
            if future.done():
                continue
            if predicate():
                future.set_result(True)
            else:
                waiting.append((predicate, future))
        self._waiters = waiting

    async def until(self, predicate: Callable[[], bool], timeout: float) -> bool:
        """Wait until ``predicate`` holds; False if it does not within ``timeout`` seconds."""
        if predicate():
            return True
        if timeout <= 0:
            return False
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bool] = loop.create_future()
        self._waiters.append((predicate, future))
        timer = loop.call_later(timeout, _give_up, future)
        try:
            return await future
        finally:
            timer.cancel()
            # Those that gave up or were cancelled; the others fire() has taken out.
            self._waiters = [waiter for waiter in self._waiters if waiter[1] is not future]


def _give_up(future: asyncio.Future[bool]) -> None:
    if not future.done():
        future.set_result(False)
