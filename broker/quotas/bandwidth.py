"""One direction of a bandwidth, shared fairly by the connections that want more than there is.

A bucket that may be overdrawn: what comes is never refused, but while the bucket is overdrawn
whoever was served has to wait. Were everybody made to wait until the debt is paid off, each
connection would get as many requests served as any other, and large requests would win. So the
wait is the time that the debt takes, times the size of what was just taken over the mean size of
what all take (weighted by bytes, so that small talk does not count). In the balance then each gets
``rate * mean / debt`` bytes a second, whatever the size of its requests, and who wants less than
that is not held up.
"""

from collections.abc import Hashable
from math import exp
from typing import Final

BURST_SECONDS: Final = 0.25
"""What may come at once after a quiet time, in seconds of the rate."""

_MEMORY_SECONDS: Final = 5.0  # how far back the mean size looks
_FLOWS_MAX: Final = 10_000  # remembered ones before those that may go on are dropped


class _Flow:
    """One connection that waits, or did so lately."""

    __slots__ = ("due", "taken")

    def __init__(self) -> None:
        self.due = 0.0  # when it may go on
        self.taken = 0.0  # since it last went on: what came together counts as one


class Bandwidth:
    """A rate in bytes a second. Times are seconds of a monotonic clock."""

    __slots__ = ("_at", "_bytes", "_debt", "_flows", "_squares", "rate")

    def __init__(self, rate: float, now: float) -> None:
        assert rate > 0
        self.rate = rate  # may be changed; what is owed stays owed
        self._debt = -rate * BURST_SECONDS  # bytes taken ahead of time
        self._at = now
        self._bytes = self._squares = 0.0  # of what was taken lately: their ratio is the mean
        self._flows: dict[Hashable, _Flow] = {}

    def take(self, who: Hashable, size: int, now: float) -> float:
        """Count ``size`` bytes; how many seconds ``who`` must take nothing more."""
        if size <= 0:
            return 0.0
        elapsed = now - self._at
        self._at = now
        rate = self.rate
        self._debt = debt = max(self._debt - rate * elapsed, -rate * BURST_SECONDS) + size
        flow = self._flows.get(who)
        before = 0.0 if flow is None or flow.due <= now else flow.taken
        taken = before + size
        fading = exp(-elapsed / _MEMORY_SECONDS)
        self._bytes = self._bytes * fading + size
        self._squares = self._squares * fading + (taken * taken - before * before)
        if debt <= 0:
            return 0.0
        if flow is None:
            flow = self._new_flow(who, now)
        flow.taken = taken
        flow.due = max(flow.due, now + debt / rate * (taken * self._bytes / self._squares))
        return flow.due - now

    def _new_flow(self, who: Hashable, now: float) -> _Flow:
        if len(self._flows) >= _FLOWS_MAX:
            self._flows = {key: flow for key, flow in self._flows.items() if flow.due > now}
        flow = self._flows[who] = _Flow()
        return flow
