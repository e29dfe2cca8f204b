"""Where the time comes from: handed in, so that tests and simulations can be its owner."""

import time
from typing import Protocol


class Clock(Protocol):
    """Two clocks: the wall's, which may jump, and one that only goes forward."""

    def wall_ms(self) -> int:
        """Milliseconds since 1970, as record timestamps count them."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary start; for time-outs and intervals."""


class SystemClock:
    """The machine's own clocks."""

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        return time.monotonic()


class ManualClock:
    """A clock that stands still until it is told to move."""

    def __init__(self, wall_ms: int = 1_500_000_000_000) -> None:
        self._wall_ms = wall_ms
        self._monotonic = 0.0

    def wall_ms(self) -> int:
        return self._wall_ms

    def monotonic(self) -> float:
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Move both clocks forward."""
        assert seconds >= 0
        self._wall_ms += round(seconds * 1000)
        self._monotonic += seconds
