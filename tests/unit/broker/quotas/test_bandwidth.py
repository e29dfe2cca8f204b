"""A bandwidth shared by connections: the whole stays at the rate, shares are fair."""

import heapq

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kavka.broker.quotas.bandwidth import BURST_SECONDS, Bandwidth

MB = 1_000_000
Greedy = tuple[int, float]  # size of a request, seconds between two at least


def play(rate: float, clients: list[Greedy], seconds: float) -> tuple[list[float], list[float]]:
    """Let clients send as fast as they may; shares of the rate that each got, and the whole of
    every second.
    """
    bandwidth = Bandwidth(rate, 0.0)
    got = [0.0] * len(clients)
    whole = [0.0] * (int(seconds) + 1)
    turns = [(number / 10_000, number) for number in range(len(clients))]
    while turns:
        now, number = heapq.heappop(turns)
        if now >= seconds:
            break
        size, pause = clients[number]
        got[number] += size / seconds / rate
        whole[int(now)] += size / rate
        wait = bandwidth.take(number, size, now)
        heapq.heappush(turns, (now + max(wait + 0.0005, pause), number))
    return got, whole


def test_one_client_gets_all_of_it() -> None:
    got, whole = play(MB, [(16_384, 0)], 30)
    assert got[0] == pytest.approx(1.0, abs=0.02)
    for begin in range(20):
        assert sum(whole[begin : begin + 10]) / 10 == pytest.approx(1.0, abs=0.05)


def test_equal_clients_get_equal_shares() -> None:
    got, _ = play(10 * MB, [(16_384, 0)] * 8, 20)
    assert sum(got) == pytest.approx(1.0, abs=0.03)
    assert max(got) / min(got) < 1.1


def test_requests_a_hundred_times_larger_do_not_win() -> None:
    got, _ = play(MB, [(1_000_000, 0), (10_000, 0)], 60)
    assert sum(got) == pytest.approx(1.0, abs=0.05)
    assert 0.25 < got[0] < 0.75


def test_who_wants_little_is_not_held_up() -> None:
    """Three of these want a hundredth each, and get it beside four that want everything."""
    got, _ = play(MB, [(16_384, 0)] * 4 + [(10_000, 1.0)] * 3, 30)
    assert got[4:] == pytest.approx([0.01] * 3, rel=0.05)
    assert sum(got) == pytest.approx(1.0, abs=0.03)


def test_many_that_come_at_once_wait_for_each_other_and_no_longer() -> None:
    _, whole = play(MB, [(1_000_000, 0)] * 10, 60)
    assert 10 <= whole[0] <= 11  # they had been sent already
    assert sum(whole[10:60]) / 50 == pytest.approx(1.2, abs=0.3)
    for begin in range(10, 50):  # nobody waits while there is room
        assert sum(whole[begin : begin + 10]) / 10 == pytest.approx(1.0, abs=0.11)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from((500, 4_000, 16_000, 100_000)), min_size=1, max_size=8))
def test_the_whole_is_the_rate_whatever_comes(sizes: list[int]) -> None:
    got, _ = play(MB, [(size, 0) for size in sizes], 20)
    first = sum(sizes) / 20 / MB + BURST_SECONDS / 20
    assert 0.93 <= sum(got) <= 1.03 + first


def test_a_quiet_time_gives_no_right_to_a_long_burst() -> None:
    bandwidth = Bandwidth(1_000.0, 0.0)
    assert bandwidth.take("a", 250, 1_000.0) == 0
    assert bandwidth.take("a", 250, 1_000.0) > 0


def test_nothing_taken_is_nothing_owed() -> None:
    bandwidth = Bandwidth(1_000.0, 0.0)
    bandwidth.take("a", 10_000, 0.0)
    assert bandwidth.take("b", 0, 0.0) == 0
