"""Holding work to a rate."""

import sys

from kavka.storage.clock import Clock

WINDOW: float = 1.0  # seconds; longer idling gives no right to a longer burst


class Throttle:
    """Tells how long to pause so that ``rate`` bytes a second are not exceeded."""

    __slots__ = ("_clock", "_due", "rate")

    def __init__(self, rate: float, clock: Clock) -> None:
        """``rate`` is bytes a second."""
        self.rate = rate
        self._clock = clock
        self._due = clock.monotonic()  # when all so far would be done at exactly the rate

    def pause(self, size: int) -> float:
        """Seconds to wait after ``size`` bytes have been read or written; 0 for none."""
        if self.rate >= sys.float_info.max:
            return 0.0
        now = self._clock.monotonic()
        self._due = max(self._due, now - WINDOW) + size / max(self.rate, 1.0)
        return max(0.0, self._due - now)
