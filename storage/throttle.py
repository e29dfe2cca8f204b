"""Holding work to a rate."""

from typing import Final

from kavka.storage.clock import Clock

WINDOW: Final = 1.0  # seconds; longer idling gives no right to a longer burst
SHORTEST: Final = 0.001  # seconds; a shorter pause is made up for by a later one


class Throttle:
    """Tells how long to pause so that a rate is not exceeded."""

    __slots__ = ("_clock", "_due", "_rate")

    def __init__(self, rate: float, clock: Clock) -> None:
        """``rate`` is bytes a second, 1 at least."""
        self._rate = max(rate, 1.0)
        self._clock = clock
        self._due = clock.monotonic()  # when all so far would be done at exactly the rate

    def pause(self, size: int) -> float:
        """Seconds to wait after ``size`` bytes have been read or written; 0 for none."""
        now = self._clock.monotonic()
        self._due = max(self._due, now - WINDOW) + size / self._rate
        pause = self._due - now
        return pause if pause >= SHORTEST else 0.0
