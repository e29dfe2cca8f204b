"""Memory for request frames that do not fit the shared receive buffer.

Buffers are anonymous maps in power-of-two sizes: their pages cost nothing until bytes really
arrive. So a frame is granted memory as its bytes come, and a peer that announces 100 MB and
sends ten bytes is in nobody's way. Used buffers are kept for the next frame, as first-touching
memory costs more than receiving into it.
"""

import mmap
from collections import deque
from collections.abc import Callable
from typing import Final

from kavka.config.limits import RECEIVE_BUFFER_BYTES

# Bytes; also the smallest buffer. Never less than what has come when a frame is seen to be large.
_FIRST_GRANT: Final = RECEIVE_BUFFER_BYTES


class Loan:
    """A buffer for one frame of ``size`` bytes, of which ``granted`` may be received so far."""

    __slots__ = ("buffer", "granted", "size")

    def __init__(self, buffer: mmap.mmap, size: int, granted: int) -> None:
        self.buffer = buffer
        self.size = size
        self.granted = granted


class FrameBuffers:
    """Lends buffers; bounds what all frames in arrival or in work hold together.

    ``budget`` and ``idle_limit`` are bytes: memory granted to frames, and memory kept for frames
    to come. The oldest frame in arrival is granted all it needs, however small the budget: some
    frame always gets on, and in the end every one.
    """

    def __init__(self, budget: int, idle_limit: int) -> None:
        self._budget = budget
        self._idle_limit = idle_limit
        self._idle: dict[int, list[mmap.mmap]] = {}
        self._arriving: dict[Loan, None] = {}  # the oldest first
        self._waiting: deque[Callable[[], None]] = deque()
        self.lent = 0  # bytes granted
        self.idle = 0  # bytes

    @property
    def contended(self) -> bool:
        """Whether somebody waits for memory that others hold."""
        return bool(self._waiting)

    def take(self, size: int) -> Loan | None:
        """A buffer for a frame of ``size`` bytes; None while the budget is used up."""
        capacity = max(_FIRST_GRANT, 1 << (size - 1).bit_length())
        kept = self._idle.get(capacity)
        if kept and self._affordable(size):
            self.idle -= capacity
            loan = Loan(kept.pop(), size, size)  # its pages exist, filled or not
        else:
            first = min(size, _FIRST_GRANT)
            if self._arriving and not self._affordable(first):
                return None
            loan = Loan(mmap.mmap(-1, capacity), size, first)
        self._arriving[loan] = None
        self.lent += loan.granted
        return loan

    def extend(self, loan: Loan) -> bool:
        """Grant a loan more, once what it had is used; False while the budget is used up."""
        more = min(loan.granted, loan.size - loan.granted)
        if loan is not next(iter(self._arriving)) and not self._affordable(more):
            return False
        loan.granted += more
        self.lent += more
        return True

    def give_back(self, loan: Loan) -> None:
        """End a loan; no view of its buffer may be used any more."""
        capacity = len(loan.buffer)
        if self.idle + capacity <= self._idle_limit:
            self._idle.setdefault(capacity, []).append(loan.buffer)
            self.idle += capacity
        self.forget(loan)

    def arrived(self, loan: Loan) -> None:
        """The frame is whole and its handler goes on using it: it is not the oldest in arrival
        any more. Ends by :meth:`forget`."""
        del self._arriving[loan]
        self._wake()

    def forget(self, loan: Loan) -> None:
        """End a loan whose buffer never comes back, since views of it may live on."""
        self._arriving.pop(loan, None)
        self.lent -= loan.granted
        assert self.lent >= 0
        self._wake()

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

    def _affordable(self, more: int) -> bool:
        return self.lent + more <= self._budget

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, deque()
        for callback in waiting:
            callback()
