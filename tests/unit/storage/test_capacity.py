"""When something is full, how much may still come, and which records go first."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kavka.storage.capacity import (
    UNLIMITED,
    CapacityRules,
    Gauge,
    Old,
    Policy,
    Trim,
    Usage,
    can_help,
    credit,
    to_free,
)

REJECT = CapacityRules(95, Policy.PRODUCE_REJECT, 0)
TRIM = CapacityRules(95, Policy.TIME_BASE, 0)
MIB = 1 << 20


def gauge(used: int = 0, total: int = 100 * MIB, rules: CapacityRules = REJECT) -> Gauge:
    made = Gauge("log directory /data", watched_at_100=False)
    made.update(Usage(used, total), rules)
    return made


@pytest.mark.parametrize(
    ("used", "full"), [(0, False), (94, False), (94.99, False), (95, True), (100, True)]
)
def test_it_is_full_from_the_threshold_on(used: float, full: bool) -> None:
    assert gauge(int(used * MIB)).full is full


def test_it_stays_full_until_two_percent_below() -> None:
    it = gauge(96 * MIB)
    for used, full in ((95, True), (94, True), (93, True), (92.99, False), (94, False), (95, True)):
        it.update(Usage(int(used * MIB), 100 * MIB), REJECT)
        assert it.full is full, used


def test_time_base_is_content_below_the_threshold() -> None:
    it = gauge(96 * MIB, rules=TRIM)
    assert it.update(Usage(94 * MIB, 100 * MIB), TRIM)
    assert not it.full
    it.update(Usage(96 * MIB, 100 * MIB), TRIM)
    it.stuck = True  # producers are refused
    assert not it.update(Usage(94 * MIB, 100 * MIB), TRIM)
    assert it.update(Usage(92 * MIB, 100 * MIB), TRIM)
    assert not it.stuck


def test_other_rules_judge_anew() -> None:
    it = gauge(96 * MIB)
    looser = REJECT._replace(threshold_percent=97)
    assert it.update(Usage(96 * MIB, 100 * MIB), looser, anew=True)
    assert not it.full


def test_a_threshold_of_100_leaves_volumes_alone_but_not_the_budget() -> None:
    off = REJECT._replace(threshold_percent=100)
    it = gauge(100 * MIB, rules=off)
    assert not it.full
    assert it.room(off) == UNLIMITED
    budget = Gauge("the budget", watched_at_100=True)
    assert budget.update(Usage(100, 100), off)
    assert budget.full


def test_what_is_not_measured_limits_nothing() -> None:
    it = gauge(96 * MIB)
    it.stuck = True
    assert it.update(Usage(0, 0), REJECT)
    assert (it.full, it.stuck, it.room(REJECT)) == (False, False, UNLIMITED)


def test_credit_is_the_smallest_room() -> None:
    assert credit([gauge(90 * MIB), gauge(80 * MIB), gauge(0, 0)], REJECT) == 5 * MIB
    assert credit([gauge(90 * MIB), gauge(95 * MIB)], REJECT) == 0
    assert credit([], REJECT) == UNLIMITED


def test_credit_does_not_become_so_small_that_each_append_is_a_look() -> None:
    assert credit([gauge(95 * MIB - 1)], REJECT) == 1 << 16


def test_a_refusal_names_usage_threshold_and_directory() -> None:
    told = gauge(96 * MIB).refusal(REJECT)
    for part in ("/data", "96.0 %", str(96 * MIB), "threshold.percent=95", "below 93 %"):
        assert part in told


class Logs:
    """Logs as lists of segments, (timestamp, size)."""

    def __init__(self, *logs: list[tuple[int, int]]) -> None:
        self.logs = logs
        self.looked_at = 0

    def _segments(self, segments: list[tuple[int, int]]) -> Iterator[Old]:
        for timestamp, size in segments:
            self.looked_at += 1
            yield Old(timestamp, size)

    def take(self, wanted: int) -> dict[int, int]:
        trim = Trim()
        for number, segments in enumerate(self.logs):
            trim.offer(number, self._segments(segments))
        return {int(str(number)): count for number, count in trim.take(wanted).items()}


def test_the_oldest_of_all_go_first() -> None:
    logs = Logs([(10, 5), (40, 5)], [(20, 5), (30, 5)], [(50, 5)])
    assert logs.take(1) == {0: 1}
    assert logs.take(11) == {0: 1, 1: 2}
    assert logs.take(16) == {0: 2, 1: 2}


def test_all_go_when_that_is_not_enough() -> None:
    assert Logs([(10, 5)], [(20, 5)], []).take(1000) == {0: 1, 1: 1}
    assert Logs().take(1000) == {}


def test_a_young_first_segment_holds_those_behind_it() -> None:
    assert Logs([(100, 5), (1, 5)], [(50, 5)]).take(6) == {1: 1, 0: 1}


def test_only_what_may_be_chosen_is_looked_at() -> None:
    logs = Logs([(number, 5) for number in range(1000)])
    logs.take(10)
    assert logs.looked_at == 3


@given(
    st.lists(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 9)), max_size=8), max_size=6),
    st.integers(0, 120),
)
def test_the_oldest_head_goes_until_it_is_enough(
    logs: list[list[tuple[int, int]]], wanted: int
) -> None:
    counts: dict[int, int] = {}
    freed = 0
    while freed < wanted:
        heads = [
            (log[counts.get(number, 0)][0], number)
            for number, log in enumerate(logs)
            if counts.get(number, 0) < len(log)
        ]
        if not heads:
            break
        _, oldest = min(heads)
        freed += logs[oldest][counts.get(oldest, 0)][1]
        counts[oldest] = counts.get(oldest, 0) + 1
    assert Logs(*logs).take(wanted) == counts


def test_a_tenth_is_freed_rounded_up() -> None:
    assert (to_free(0), to_free(1), to_free(100), to_free(101)) == (0, 1, 10, 11)


def test_nothing_is_deleted_where_others_fill_the_disk() -> None:
    full = gauge(99 * MIB, rules=TRIM)
    assert can_help(full, 5 * MIB, TRIM)
    assert not can_help(full, 4 * MIB, TRIM)
    assert not can_help(full, 0, TRIM)
