"""One timer for many deadlines: the earliest one of all groups is armed, the rest wait in a heap.

A deadline may be set again and again (every heartbeat moves one); only an earlier one than is
already known costs anything, the owner finds out at the old time that nothing was due.
"""

import heapq
from collections.abc import Callable
from typing import Protocol

from kavka.storage.clock import Clock


class TimerHandle(Protocol):
    """What the event loop gives for a scheduled call."""

    def cancel(self) -> None: ...


CallLater = Callable[[float, Callable[[], None]], TimerHandle]
"""``loop.call_later`` without arguments: seconds from now, what to call."""


class Deadlines:
    """Calls ``on_due(key)`` soon after a key's earliest deadline. Owned by the event loop."""

    def __init__(self, clock: Clock, call_later: CallLater, on_due: Callable[[str], None]) -> None:
        self._clock = clock
        self._call_later = call_later
        self._on_due = on_due
        self._due_at: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []
        self._timer: TimerHandle | None = None
        self._armed_for = 0.0

    def __len__(self) -> int:
        return len(self._due_at)

    def set(self, key: str, deadline: float) -> None:
        """Have ``key`` looked at by ``deadline`` (seconds of the clock), or earlier if it was."""
        known = self._due_at.get(key)
        if known is not None and known <= deadline:
            return
        self._due_at[key] = deadline
        heapq.heappush(self._heap, (deadline, key))
        self._arm()

    def forget(self, key: str) -> None:
        """The key is gone."""
        self._due_at.pop(key, None)

    def close(self) -> None:
        """Forget everything."""
        self._due_at.clear()
        self._heap.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        while self._heap and self._due_at.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)  # forgotten, or set to an earlier time since
        if not self._heap:
            return
        earliest = self._heap[0][0]
        if self._timer is not None:
            if self._armed_for <= earliest:
                return
            self._timer.cancel()
        self._armed_for = earliest
        delay = max(earliest - self._clock.monotonic(), 0.0)
        self._timer = self._call_later(delay, self._ring)

    def _ring(self) -> None:
        self._timer = None
        now = self._clock.monotonic()
        try:
            for _ in range(len(self._heap)):
                if not self._heap or self._heap[0][0] > now:
                    break
                deadline, key = heapq.heappop(self._heap)
                if self._due_at.get(key) == deadline:
                    del self._due_at[key]
                    self._on_due(key)
        finally:
            # Also when a key's owner failed: the others keep their deadlines.
            self._arm()
