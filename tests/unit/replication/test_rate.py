"""Rates against Kafka's own way of sampling, written out plainly."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kavka.replication.rate import Rate


class Sampled:
    """``SampledStat`` and ``Rate`` of Kafka 2.3, a ring of samples that are reset."""

    def __init__(self, samples: int, size: float) -> None:
        self.samples, self.size = samples, size
        self.ring: list[list[float]] = []  # begun, held
        self.current = 0

    def record(self, amount: float, now: float) -> None:
        if not self.ring:
            self.ring.append([now, 0.0])
        if now - self.ring[self.current][0] >= self.size:
            self.current = (self.current + 1) % self.samples
            if self.current >= len(self.ring):
                self.ring.append([now, 0.0])
            else:
                self.ring[self.current] = [now, 0.0]
        self.ring[self.current][1] += amount

    def measure(self, now: float) -> tuple[float, float]:
        """What the samples hold, and the seconds that it is spread over."""
        for sample in self.ring:
            if now - sample[0] >= self.samples * self.size:
                sample[:] = [now, 0.0]
        total = sum(held for _, held in self.ring)
        elapsed = now - min((begun for begun, _ in self.ring), default=now)
        full = int(elapsed / self.size)
        if full < self.samples - 1:
            elapsed += (self.samples - 1 - full) * self.size
        return total, elapsed or self.size


EVENTS = st.lists(
    st.tuples(st.integers(0, 24), st.integers(-5, 100_000), st.booleans()), max_size=60
)


@settings(max_examples=200, deadline=None)
@given(EVENTS, st.integers(1, 11), st.sampled_from((1.0, 2.0)))
def test_a_rate_is_that_of_kafkas_samples(
    events: list[tuple[int, int, bool]], samples: int, size: float
) -> None:
    """The sums are; the time they are spread over may differ by part of a sample, as Kafka begins
    samples anew, empty, when it looks at ones that are over.
    """
    rate, model = Rate(samples, size), Sampled(samples, size)
    now = 0.0
    model.record(0, now)  # both have begun by now
    for quarters, amount, looked_at in events:
        now += quarters / 4
        rate.record(amount, now)
        model.record(amount, now)
        if looked_at:
            total, window = model.measure(now)
            assert rate.total(now) == pytest.approx(total)
            assert abs(rate.window(now) - window) < size
            assert rate.value(now) == rate.total(now) / rate.window(now)


def test_the_first_events_are_spread_over_the_whole_window() -> None:
    rate = Rate(11, 1.0)
    rate.record(5_000, 0.5)
    assert rate.value(0.5) == pytest.approx(5_000 / 10.5)
    assert rate.excess(1_000, 0.5) == 0


def test_the_excess_is_kafkas_formula() -> None:
    rate = Rate(11, 1.0, now=100.0)
    rate.record(15_000, 100.0)
    value, window, bound = rate.value(100.0), 10.0, 1_000
    assert rate.excess(bound, 100.0) == pytest.approx((value - bound) / bound * window)
    assert rate.excess(bound, 100.0) == pytest.approx(5.0)
    assert rate.excess(1_500, 100.0) == 0  # at the bound is not above it


def test_samples_are_forgotten_whole() -> None:
    rate = Rate(11, 1.0)
    rate.record(11_000, 0.0)
    assert rate.value(10.9) == pytest.approx(11_000 / 10.9)
    assert rate.total(11.0) == 0
    assert rate.excess(1, 11.0) == 0


def test_silence_lasts_a_window_where_nothing_is_allowed() -> None:
    rate = Rate(11, 1.0)
    assert rate.excess(0, 0.0) == 0  # nothing came
    rate.record(1, 0.0)
    assert rate.excess(0, 0.0) == 11
    assert rate.excess(-1, 0.0) == 11


def test_one_sample_that_has_just_begun_counts_as_whole() -> None:
    rate = Rate(1, 2.0)
    rate.record(8, 0.0)
    assert rate.value(0.0) == 4


def test_what_floats_lose_does_not_add_up() -> None:
    rate = Rate(3, 1.0)
    for step in range(10_000):
        rate.record(0.1, step * 1.0)
    assert rate.total(9_999.0) == pytest.approx(0.3)
    assert rate.total(10_010.0) == 0
