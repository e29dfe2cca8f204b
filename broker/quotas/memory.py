"""What has been counted, by whom it was done, for as long as it matters."""

from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

from kavka.replication.rate import Rate

EXPIRE_SECONDS: Final = 3600.0
"""What is not used for so long is forgotten, as by Kafka's sensors."""

CROWD: Final = 20_000
"""Entries above which only those are kept that still make a difference: strangers may think out
ever new client ids, and have ever new addresses."""

_SWEEP_SECONDS: Final = 60.0
_CROWD_SWEEP_SECONDS: Final = 1.0

K = TypeVar("K", bound=Hashable)
C = TypeVar("C")  # what is counted with: a rate, a bucket


class Window:
    """How rates are sampled: ``quota.window.num`` and ``quota.window.size.seconds``."""

    __slots__ = ("samples", "seconds")

    def __init__(self, samples: int, seconds: float) -> None:
        self.samples = samples
        self.seconds = seconds  # of one sample

    @property
    def whole(self) -> float:
        """Seconds after which nothing is left of an event."""
        return self.samples * self.seconds

    @property
    def burst(self) -> float:
        """Seconds whose worth may come at once: those that every rate is spread over."""
        return max(self.samples - 1, 1) * self.seconds

    def rate(self, now: float) -> Rate:
        return Rate(self.samples, self.seconds, now)


class Counted(Generic[C]):
    """What was done under one key, and when last."""

    __slots__ = ("by", "last_used")

    def __init__(self, by: C, now: float) -> None:
        self.by = by
        self.last_used = now


class Memory(Generic[K, C]):
    """Makes what is counted with when a key is first met, and forgets who has been quiet."""

    def __init__(self, make: Callable[[float], C], window: Window) -> None:
        """``make`` is given the time."""
        self._make = make
        self._matters = window.whole
        self._entries: dict[K, Counted[C]] = {}
        self._swept = 0.0
        self.forgotten = 0
        """How often something was: who holds an entry must ask anew then."""

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, key: K, now: float) -> Counted[C]:
        counted = self._entries.get(key)
        if counted is None:
            self._sweep(now)
            counted = self._entries[key] = Counted(self._make(now), now)
        counted.last_used = now
        return counted

    def _sweep(self, now: float) -> None:
        crowded = len(self._entries) >= CROWD
        if now - self._swept < (_CROWD_SWEEP_SECONDS if crowded else _SWEEP_SECONDS):
            return
        self._swept = now
        patience = self._matters if crowded else EXPIRE_SECONDS
        kept = {
            key: counted
            for key, counted in self._entries.items()
            if now - counted.last_used < patience
        }
        if len(kept) < len(self._entries):
            self.forgotten += 1
        self._entries = kept
