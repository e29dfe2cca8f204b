"""Rates over sliding samples, as Kafka measures them for quotas and replication throttles.

``*quota.window.num`` samples of ``*quota.window.size.seconds`` each. A sample begins with the
first event after the one before it ended, and is forgotten once it began ``num * size`` ago. The
rate is what all samples hold over the time since the oldest of them began, at least ``num - 1``
whole samples, so that the first events of a quiet spell are not taken for a flood (Kafka's
``Rate`` and ``SampledStat``).
"""

from collections import deque
from typing import Final

DEFAULT_SAMPLES: Final = 11
DEFAULT_SAMPLE_SECONDS: Final = 1.0


class Rate:
    """One measured rate. Times are seconds of a monotonic clock and never go back."""

    __slots__ = ("_begun", "_now_in", "_older", "_older_sum", "_sample", "_samples", "last_used")

    def __init__(
        self,
        samples: int = DEFAULT_SAMPLES,
        sample_seconds: float = DEFAULT_SAMPLE_SECONDS,
        now: float = 0.0,
    ) -> None:
        assert samples >= 1 and sample_seconds > 0
        self._samples = samples
        self._sample = sample_seconds
        self._begun = now  # when the current sample began
        self._now_in = 0.0  # what it holds
        self._older: deque[tuple[float, float]] = deque()  # (begun, held), oldest first
        self._older_sum = 0.0
        self.last_used = now  # of the last event

    def record(self, amount: float, now: float) -> None:
        """Count an event of this size; a negative amount takes one back."""
        self.last_used = now
        if now - self._begun >= self._sample:
            self._roll(now)
        self._now_in += amount

    def total(self, now: float) -> float:
        """What the samples hold that are not forgotten yet."""
        if now - self._begun >= self._sample * self._samples:
            self._roll(now)
        elif self._older:
            self._forget(now)
        return self._older_sum + self._now_in

    def window(self, now: float) -> float:
        """Seconds that :meth:`total` is spread over; to be asked after it."""
        elapsed = now - (self._older[0][0] if self._older else self._begun)
        missing = self._samples - 1 - int(elapsed / self._sample)
        if missing > 0:
            elapsed += missing * self._sample
        return elapsed or self._sample  # of a single sample that has just begun

    def value(self, now: float) -> float:
        """The rate, in what was recorded a second."""
        return self.total(now) / self.window(now)

    def excess(self, bound: float, now: float) -> float:
        """Seconds to be silent until the rate is down to ``bound``; 0 when it is not above.

        Kafka's ``(rate - bound) / bound * window``. Where nothing is allowed at all it is as
        long as all samples.
        """
        total = self.total(now)
        if total <= 0:
            return 0.0
        if bound <= 0:
            return self._samples * self._sample
        return max(total / bound - self.window(now), 0.0)

    def _roll(self, now: float) -> None:
        """Begin a new sample."""
        if now - self._begun < self._sample * self._samples:
            self._older.append((self._begun, self._now_in))
            self._older_sum += self._now_in
            self._forget(now)
        else:
            self._older.clear()
            self._older_sum = 0.0
        self._begun = now
        self._now_in = 0.0

    def _forget(self, now: float) -> None:
        older = self._older
        expired = now - self._sample * self._samples
        if older and older[0][0] <= expired:
            while older and older[0][0] <= expired:
                older.popleft()
            # Anew, not by subtraction: what floats lose must not add up.
            self._older_sum = sum(held for _, held in older)
