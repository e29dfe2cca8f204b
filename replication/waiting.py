"""The waiting room: operations that cannot be answered yet (Kafka calls it the purgatory).

An operation waits for something to happen to one or more *keys* (a topic-partition whose high
watermark moves, say) or for its deadline. Three things keep this cheap:

* A key that something happened to is only marked; its waiters are looked at once per turn of
  the event loop, however many appends that turn brought.
* Deadlines live in buckets of :data:`TICK_SECONDS`, one timer for the earliest bucket, so that
  parking and leaving cost two set operations and no timer.
* A finished operation leaves every index at once, so that memory follows what really waits.
"""

import heapq
from collections.abc import Callable, Hashable, Iterable
from typing import Any, Final, Protocol

from kavka.storage.clock import Clock

TICK_SECONDS: Final = 0.01
_SPARE_BUCKETS: Final = 1000


class TimerHandle(Protocol):
    """What a loop gives for a scheduled call."""

    def cancel(self) -> None: ...


class Scheduler(Protocol):
    """The two calls of an event loop that the waiting room needs."""

    def call_soon(self, callback: Callable[[], object]) -> Any: ...

    def call_later(self, delay: float, callback: Callable[[], object]) -> TimerHandle: ...


class Waiter:
    """One parked operation. Subclasses say when it is done and what then happens.

    The room calls :meth:`try_complete` after something happened to one of its keys, and
    :meth:`expire` at the deadline; after either has finished the operation it is forgotten.
    """

    __slots__ = ("_bucket", "_keys")

    def __init__(self) -> None:
        self._keys: tuple[Hashable, ...] = ()
        self._bucket: dict[Waiter, None] | None = None

    @property
    def parked(self) -> bool:
        """Whether the operation is still in the room."""
        return self._bucket is not None

    def try_complete(self, key: Hashable) -> bool:
        """Finish if possible now that something happened to ``key``; True when finished."""
        raise NotImplementedError

    def expire(self) -> None:
        """Finish because the deadline has passed."""
        raise NotImplementedError


class WaitingRoom:
    """All parked operations of one broker. Owned by the event loop; not thread-safe."""

    def __init__(self, clock: Clock, scheduler: Scheduler) -> None:
        self._clock = clock
        self._scheduler = scheduler
        # Dicts, not sets, for their order: first come, first served.
        self._by_key: dict[Hashable, dict[Waiter, None]] = {}
        self._buckets: dict[int, dict[Waiter, None]] = {}
        self._ticks: list[int] = []
        self._timer: TimerHandle | None = None
        self._timer_tick = 0
        self._touched: dict[Hashable, None] = {}
        self._run_scheduled = False
        self._size = 0
        self.awaited = 0
        """How many keys all parked operations wait for, each for itself: what the room costs."""

    def __len__(self) -> int:
        """How many operations are parked."""
        return self._size

    def park(self, waiter: Waiter, keys: Iterable[Hashable], timeout: float) -> None:
        """Let ``waiter`` wait for its keys, for at most ``timeout`` seconds."""
        assert waiter._bucket is None, "an operation waits only once"
        waiter._keys = tuple(keys)
        by_key = self._by_key
        for key in waiter._keys:
            waiters = by_key.get(key)
            if waiters is None:
                by_key[key] = {waiter: None}
            else:
                waiters[waiter] = None
        # Rounded up: an operation may wait a tick too long, never too short.
        tick = int((self._clock.monotonic() + timeout) / TICK_SECONDS) + 1
        bucket = self._buckets.get(tick)
        if bucket is None:
            if len(self._ticks) > _SPARE_BUCKETS + 2 * self._size:
                self._drop_empty_buckets()
            bucket = self._buckets[tick] = {}
            heapq.heappush(self._ticks, tick)
            if self._timer is None or tick < self._timer_tick:
                self._arm()
        bucket[waiter] = None
        waiter._bucket = bucket
        self._size += 1
        self.awaited += len(waiter._keys)

    def leave(self, waiter: Waiter) -> None:
        """Forget an operation that was finished or given up from outside (a closed connection)."""
        bucket = waiter._bucket
        if bucket is None:
            return
        bucket.pop(waiter, None)
        waiter._bucket = None
        by_key = self._by_key
        for key in waiter._keys:
            waiters = by_key.get(key)
            if waiters is not None:
                waiters.pop(waiter, None)
                if not waiters:
                    del by_key[key]
        self.awaited -= len(waiter._keys)
        waiter._keys = ()
        self._size -= 1

    def notify(self, key: Hashable) -> None:
        """Something happened to ``key``: look at its waiters at the end of this loop turn."""
        if key in self._by_key:
            self._touched[key] = None
            if not self._run_scheduled:
                self._run_scheduled = True
                self._scheduler.call_soon(self._run)

    def expire_all(self) -> None:
        """Finish every parked operation as if its deadline had come (the broker stops)."""
        for bucket in list(self._buckets.values()):
            self._expire_bucket(bucket)

    def _run(self) -> None:
        self._run_scheduled = False
        touched = self._touched
        self._touched = {}
        for key in touched:
            for waiter in tuple(self._by_key.get(key, ())):
                if waiter._bucket is not None and waiter.try_complete(key):
                    self.leave(waiter)

    def _expire_bucket(self, bucket: dict[Waiter, None]) -> None:
        for waiter in tuple(bucket):
            if waiter._bucket is not None:
                self.leave(waiter)
                waiter.expire()

    def _drop_empty_buckets(self) -> None:
        """Far deadlines whose operations have left must not pile up until they come."""
        self._buckets = {tick: bucket for tick, bucket in self._buckets.items() if bucket}
        self._ticks = list(self._buckets)
        heapq.heapify(self._ticks)

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._ticks:
            self._timer_tick = self._ticks[0]
            delay = self._timer_tick * TICK_SECONDS - self._clock.monotonic()
            self._timer = self._scheduler.call_later(max(delay, 0.0), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        now = self._clock.monotonic()
        while self._ticks and self._ticks[0] * TICK_SECONDS <= now:
            bucket = self._buckets.pop(heapq.heappop(self._ticks))
            self._expire_bucket(bucket)
        # Buckets whose waiters have all left need no wake-up.
        while self._ticks and not self._buckets[self._ticks[0]]:
            del self._buckets[heapq.heappop(self._ticks)]
        if self._timer is None:
            self._arm()
