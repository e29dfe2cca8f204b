"""KIP-599: partitions made and deleted, by a bucket that may be overdrawn."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kavka.broker.quotas.memory import Window
from kavka.broker.quotas.mutations import TokenBucket

WINDOW = Window(11, 1.0)


class Model:
    """``TokenBucket`` of Kafka 2.7: refilled from the beginning of time."""

    def __init__(self) -> None:
        self.tokens = 0.0
        self.at = -1e9

    def measure(self, rate: float, now: float) -> float:
        self.tokens = min(rate * 11, self.tokens + rate * (now - self.at))
        self.at = now
        return self.tokens

    def record(self, value: float, rate: float, now: float) -> None:
        self.measure(rate, now)
        self.tokens = min(rate * 11, self.tokens - value)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 20), st.integers(0, 200), st.sampled_from((0.5, 5.0, 5.0)))),
)
def test_the_bucket_is_kafkas(steps: list[tuple[float, int, float]]) -> None:
    bucket, model, now = TokenBucket(WINDOW, 0.0), Model(), 0.0
    for pause, partitions, rate in steps:
        now += pause
        bucket.take(partitions, rate, now)
        model.record(partitions, rate, now)
        tokens = model.measure(rate, now)
        expected = -tokens / rate if tokens < 0 else 0
        assert bucket.debt(rate, now) == pytest.approx(expected, abs=1e-6)


def test_a_window_s_worth_at_once_then_the_rate() -> None:
    bucket = TokenBucket(WINDOW, 0.0)
    bucket.take(110, 10.0, 0.0)
    assert bucket.debt(10.0, 0.0) == 0
    bucket.take(50, 10.0, 0.0)
    assert bucket.debt(10.0, 0.0) == pytest.approx(5.0)
    assert bucket.debt(10.0, 5.0) == 0


def test_where_nothing_is_allowed_the_wait_is_a_window() -> None:
    bucket = TokenBucket(WINDOW, 0.0)
    assert bucket.debt(0.0, 0.0) == 0
    bucket.take(1, 0.0, 0.0)
    assert bucket.debt(0.0, 100.0) == 11
