"""Memory for request frames that do not fit the shared receive buffer.

Buffers are anonymous maps in power-of-two sizes: their pages cost nothing until bytes really
arrive, so a peer that announces 100 MB and sends ten bytes has taken ten bytes. Used buffers
are kept for the next frame, as first-touching memory costs more than receiving into it.
"""

import mmap
from collections import deque
from collections.abc import Callable
from typing import Final

_SMALLEST: Final = 1 << 17


class FrameBuffers:
    """Lends buffers; bounds what all frames in arrival may hold together.

    ``budget`` and ``idle_limit`` are bytes: announced sizes of frames now arriving or being
    handled, and memory kept for frames to come. A single frame is always let in, however
    small the budget.
    """

    def __init__(self, budget: int, idle_limit: int) -> None:
        self._budget = budget
        self._idle_limit = idle_limit
        self._idle: dict[int, list[mmap.mmap]] = {}
        self._waiting: deque[Callable[[], None]] = deque()
        self.lent = 0  # bytes
        self.idle = 0  # bytes

    @property
    def contended(self) -> bool:
        """Whether somebody waits for memory that others hold."""
        return bool(self._waiting)

    def take(self, size: int) -> mmap.mmap | None:
        """A buffer of at least ``size`` bytes; None while the budget is used up."""
        if self.lent and self.lent + size > self._budget:
            return None
        self.lent += size
        capacity = max(_SMALLEST, 1 << (size - 1).bit_length())
        kept = self._idle.get(capacity)
        if kept:
            self.idle -= capacity
            return kept.pop()
        return mmap.mmap(-1, capacity)

    def give_back(self, buffer: mmap.mmap, size: int) -> None:
        """Return what ``take(size)`` lent; no view of it may be used any more."""
        capacity = len(buffer)
        if self.idle + capacity <= self._idle_limit:
            self._idle.setdefault(capacity, []).append(buffer)
            self.idle += capacity
        self.forget(size)

    def forget(self, size: int) -> None:
        """A buffer taken for ``size`` bytes has a new owner and never comes back."""
        assert size <= self.lent
        self.lent -= size
        waiting, self._waiting = self._waiting, deque()
        for callback in waiting:
            callback()

    def call_when_freed(self, callback: Callable[[], None]) -> None:
        """Call once when memory has come back; the caller then tries to take again."""
        self._waiting.append(callback)

    def trim(self) -> None:
        """Let go of half of the idle memory; called now and then, so that a burst is forgotten."""
        for capacity, kept in list(self._idle.items()):
            surplus = (len(kept) + 1) // 2
            del kept[:surplus]
            self.idle -= capacity * surplus
            if not kept:
                del self._idle[capacity]
