"""The quota on creating and deleting partitions (KIP-599): a bucket that may be overdrawn once."""

from typing import Final

from kavka.broker.quotas.memory import Window
from kavka.protocol.errors import ErrorCode, KafkaError

EXCEEDED: Final = "The throttling quota has been exceeded."


class TokenBucket:
    """As many partitions as the rate gives in all samples may be changed at once."""

    __slots__ = ("_at", "_tokens", "_window")

    def __init__(self, window: Window, now: float) -> None:
        self._window = window
        self._tokens = float("inf")  # full, whatever the rate will be
        self._at = now

    def take(self, permits: float, rate: float, now: float) -> None:
        """Take permits, also if there are not enough: then there is a debt to work off."""
        self._tokens = self._refilled(rate, now) - permits
        self._at = now

    def debt(self, rate: float, now: float) -> float:
        """Seconds until nothing is owed any more."""
        tokens = self._refilled(rate, now)
        if tokens >= 0:
            return 0.0
        return -tokens / rate if rate > 0 else self._window.whole

    def _refilled(self, rate: float, now: float) -> float:
        rate = max(rate, 0.0)
        burst = rate * self._window.whole
        return min(self._tokens + rate * (now - self._at), burst)


def exceeded() -> KafkaError:
    """What a client that knows of it is told."""
    return KafkaError(ErrorCode.THROTTLING_QUOTA_EXCEEDED, EXCEEDED)
