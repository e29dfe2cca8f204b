"""Holding work to a rate."""

import sys

import pytest

from kavka.storage.clock import ManualClock
from kavka.storage.throttle import Throttle


def test_pauses_add_up_to_the_rate() -> None:
    clock = ManualClock()
    throttle = Throttle(1_000.0, clock)
    total = 0.0
    for size in (100, 3_000, 1, 899):
        pause = throttle.pause(size)
        clock.advance(pause)
        total += pause
    assert total == pytest.approx(4.0)


def test_time_that_work_took_is_taken_off() -> None:
    clock = ManualClock()
    throttle = Throttle(1_000.0, clock)
    clock.advance(0.3)
    assert throttle.pause(500) == pytest.approx(0.2)


def test_idling_gives_no_right_to_a_burst() -> None:
    clock = ManualClock()
    throttle = Throttle(1_000.0, clock)
    clock.advance(3_600)
    assert throttle.pause(1_000) == 0
    assert throttle.pause(1_000) == pytest.approx(1.0)


@pytest.mark.parametrize("rate", [sys.float_info.max, sys.float_info.max / 2, float("inf")])
def test_no_limit_is_no_limit(rate: float) -> None:
    assert Throttle(rate, ManualClock()).pause(1 << 40) == 0


def test_short_pauses_are_saved_up() -> None:
    throttle = Throttle(1_000_000.0, ManualClock())
    assert throttle.pause(600) == 0
    assert throttle.pause(600) == pytest.approx(0.0012)


def test_a_rate_below_a_byte_a_second_is_one() -> None:
    assert Throttle(0.0, ManualClock()).pause(1 + 5) == pytest.approx(6.0)
