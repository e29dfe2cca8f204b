"""Byte rates: what the limit comes to over any ten seconds, and when a reader gets on."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kavka.broker.quotas.bytes import ByteRate
from kavka.broker.quotas.memory import Window

WINDOW = Window(11, 1.0)
BURST = 0.5


def moved_by_producer(
    rate: ByteRate, limit: float, size: int, seconds: float, gap: float = 0.001
) -> list[tuple[float, int]]:
    """A producer that sends as fast as it may."""
    now, moved = 0.0, []
    while now < seconds:
        moved.append((now, size))
        now += rate.count(size, limit, now) + gap
    return moved


def moved_by_consumer(
    rate: ByteRate, limit: float, size: int, seconds: float, gap: float = 0.001
) -> list[tuple[float, int]]:
    """A consumer that asks for more as soon as it may, and gets nothing while it is over."""
    now, moved = 0.0, []
    while now < seconds:
        passes, wait = rate.try_count(size, limit, now)
        if passes:
            moved.append((now, size))
        now += wait + gap
    return moved


def windows(moved: list[tuple[float, int]], limit: float, seconds: int) -> list[float]:
    """The measured rate over the limit, for every ten seconds that begin with a half."""
    return [
        sum(size for at, size in moved if begin <= at < begin + 10) / 10 / limit
        for begin in (step / 2 for step in range(2 * (seconds - 10)))
    ]


@settings(max_examples=15, deadline=None)
@given(st.integers(1_000, 50_000), st.sampled_from((0.05, 0.4, 0.9)))
def test_the_limit_holds_over_any_ten_seconds(size: int, eagerness: float) -> None:
    """For who could do more: between two requests there is less time than one is worth."""
    limit, seconds = 200_000.0, 25
    gap = size / limit * eagerness
    for move in (moved_by_producer, moved_by_consumer):
        moved = move(ByteRate(WINDOW, BURST, 0.0), limit, size, seconds, gap)
        measured = windows(moved, limit, seconds)
        assert min(measured) >= 0.9 and max(measured) <= 1.1, move


def test_requests_as_large_as_a_seconds_worth() -> None:
    limit = 100_000.0
    for move in (moved_by_producer, moved_by_consumer):
        measured = windows(move(ByteRate(WINDOW, BURST, 0.0), limit, 100_000, 40), limit, 40)
        assert min(measured) >= 0.89 and max(measured) <= 1.11, move


def test_kafkas_own_rule_lets_the_window_s_worth_pass_at_once() -> None:
    rate = ByteRate(WINDOW, None, 0.0)
    assert rate.count(10_000, 1_000, 0.0) == 0
    assert rate.count(5_000, 1_000, 0.0) == pytest.approx(5.0)  # (1500 - 1000) / 1000 * 10
    assert rate.count(0, 1_000, 11.0) == 0


def test_beside_the_burst_the_window_s_rule_holds() -> None:
    rate = ByteRate(WINDOW, BURST, 0.0)
    assert rate.count(500, 1_000, 0.0) == 0
    assert rate.count(500, 1_000, 0.0) == pytest.approx(0.5)
    assert rate.count(20_000, 1_000, 0.5) == pytest.approx(20.0)
    # All but caught up, but the window still has it.
    patient = ByteRate(WINDOW, 5.0, 0.0)
    assert patient.count(15_000, 1_000, 0.0) == pytest.approx(10.0)
    impatient = ByteRate(WINDOW, 100.0, 0.0)
    assert impatient.count(15_000, 1_000, 0.0) == pytest.approx(5.0)


def test_what_is_refused_is_not_counted() -> None:
    rate = ByteRate(WINDOW, None, 0.0)
    assert rate.try_count(9_000, 1_000, 0.0) == (True, 0.0)
    passes, wait = rate.try_count(2_000, 1_000, 0.0)
    assert not passes and wait == pytest.approx(1.0)
    assert rate.try_count(1_000, 1_000, 0.0) == (True, 0.0)


@pytest.mark.parametrize("burst", (BURST, None))
def test_a_batch_beyond_all_limits_passes_alone(burst: float | None) -> None:
    """Its reader would ask for it for ever otherwise."""
    rate, now = ByteRate(WINDOW, burst, 0.0), 0.0
    got = 0
    while now < 400:
        passes, wait = rate.try_count(50_000, 1_000, now)
        got += 50_000 * passes
        assert wait > 0  # told to wait in any case
        now += wait
    # Kafka takes the whole window off the wait: ten seconds of sixty-one.
    assert got == pytest.approx(1_000 * now, rel=0.05 if burst is not None else 0.3)


def test_nothing_at_all_is_allowed() -> None:
    rate = ByteRate(WINDOW, BURST, 0.0)
    assert rate.count(1, 0, 0.0) == 11
    assert rate.try_count(1, 0, 0.0) == (False, 11)
    assert rate.try_count(1, -5, 20.0)[1] == 11
