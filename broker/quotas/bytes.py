"""Byte rates of producers and consumers: Kafka's rule, made smooth.

Kafka lets as much pass at once as the limit gives in the whole window, ten seconds by default,
then nothing until the sample with the burst in it is forgotten, then the next burst: over ten
seconds that is the limit by accident of where they begin. With ``quota.burst.seconds`` a client
has to wait as soon as it is that far ahead of its limit, and for as long as it takes to be on time
again. The rule of the window holds beside it, the longer wait counts.
"""

from typing import Final

from kavka.broker.quotas.memory import Window
from kavka.replication.rate import Rate

_TOLD_EXACTLY: Final = 0.001  # seconds: waits are told to clients in milliseconds


class ByteRate:
    """What the clients under one key have moved. Limits are in bytes, waits in seconds."""

    __slots__ = ("_ahead", "_at", "_burst", "_rate")

    def __init__(self, window: Window, burst: float | None, now: float) -> None:
        """``burst`` is in seconds' worth of the limit; None leaves it to the window."""
        self._rate: Rate = window.rate(now)
        self._burst = burst
        self._ahead = 0.0  # bytes moved ahead of time
        self._at = now

    def count(self, size: float, limit: float, now: float) -> float:
        """Count bytes that have been moved; the wait."""
        self._catch_up(limit, now)
        self._ahead += size
        self._rate.record(size, now)
        return self._wait(limit, now)

    def try_count(self, size: float, limit: float, now: float) -> tuple[bool, float]:
        """Count bytes that are about to be moved if they may; whether they may, and the wait.

        What is over the limit must not, unless nothing is left of what was moved before: what is
        too much all by itself would never pass.
        """
        self._catch_up(limit, now)
        if self._burst is None:
            idle = not self._rate.total(now)
        else:
            idle = self._ahead <= limit * _TOLD_EXACTLY
        owed = self._wait_for_idle(limit, now)
        wait = self.count(size, limit, now)
        if wait <= 0:
            return True, 0.0
        if idle:
            return True, max(wait, self._wait_for_idle(limit, now))
        self._ahead -= size
        self._rate.record(-size, now)
        return False, min(wait, owed) if owed > 0 else wait

    def _catch_up(self, limit: float, now: float) -> None:
        self._ahead = max(self._ahead - max(limit, 0.0) * (now - self._at), 0.0)
        self._at = now

    def _wait(self, limit: float, now: float) -> float:
        wait = self._rate.excess(limit, now)
        if self._burst is not None and limit > 0:
            wait = max(wait, self._ahead / limit - self._burst)
        return wait

    def _wait_for_idle(self, limit: float, now: float) -> float:
        """Until nothing is ahead of time any more; 0 where only the window counts."""
        if self._burst is None or limit <= 0:
            return 0.0
        return max(self._ahead / limit, self._rate.excess(limit, now))
