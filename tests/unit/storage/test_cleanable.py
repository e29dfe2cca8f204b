"""Which part of a log is cleaned, and when."""

import pytest

from kavka.config.option import LONG_MAX
from kavka.storage.cleanable import (
    Cleanable,
    CompactionRules,
    LogState,
    filthiest,
    first_dirty_offset,
    judge,
)

NOW = 1_000_000


class FakeSegment:
    def __init__(self, base_offset: int, size: int, largest: int = 0, first: int = -1) -> None:
        self.base_offset = base_offset
        self.size = size
        self._largest = largest
        self._first = first

    @property
    def largest_timestamp(self) -> int:
        assert self._largest, "asked for what no setting needs"
        return self._largest

    @property
    def first_timestamp(self) -> int:
        assert self._first >= 0, "asked for what no setting needs"
        return self._first


RULES = CompactionRules(0.5, 0, LONG_MAX)


def look(
    *segments: FakeSegment,
    checkpoint: int | None = None,
    start: int = 0,
    stable: int = 10_000,
    end: int = 10_000,
    rules: CompactionRules = RULES,
) -> Cleanable:
    return judge(segments, LogState(checkpoint, start, stable, end), rules, NOW)


FOUR = (FakeSegment(0, 10), FakeSegment(100, 20), FakeSegment(200, 30), FakeSegment(300, 40))


@pytest.mark.parametrize(
    ("checkpoint", "expected"),
    [
        (None, Cleanable(0, 300, 0, 60, 0)),
        (0, Cleanable(0, 300, 0, 60, 0)),
        (100, Cleanable(100, 300, 10, 50, 0)),
        (150, Cleanable(150, 300, 30, 50, 0)),  # the map was full: that segment is half clean
        (300, Cleanable(300, 300, 60, 0, 0)),
        (350, Cleanable(350, 350, 100, 0, 0)),
    ],
)
def test_all_but_the_active_segment_is_cleaned(checkpoint: int | None, expected: Cleanable) -> None:
    assert look(*FOUR, checkpoint=checkpoint) == expected


@pytest.mark.parametrize(
    ("stable", "boundary", "dirty_bytes"),
    [(0, 0, 0), (50, 0, 0), (100, 100, 10), (199, 100, 10), (200, 200, 30), (350, 300, 60)],
)
def test_nothing_past_the_last_stable_offset_is_cleaned(
    stable: int, boundary: int, dirty_bytes: int
) -> None:
    found = look(*FOUR, stable=stable)
    assert (found.first_uncleanable, found.dirty_bytes) == (boundary, dirty_bytes)


def test_a_bound_below_what_is_clean_leaves_nothing_to_clean() -> None:
    found = look(*FOUR, checkpoint=150, stable=160)
    assert found == Cleanable(150, 150, 30, 0, 0)
    assert not found.is_due(CompactionRules(0.0, 0, LONG_MAX))


def test_young_segments_are_left_alone() -> None:
    rules = CompactionRules(0.5, 1_000, LONG_MAX)
    segments = [
        FakeSegment(0, 10),  # clean, its age is not asked
        FakeSegment(100, 20, NOW - 1_000),
        FakeSegment(200, 30, NOW - 999),
        FakeSegment(300, 40),  # nor that of those behind a young one
        FakeSegment(400, 50),
    ]
    found = look(*segments, checkpoint=100, rules=rules)
    assert found == Cleanable(100, 200, 10, 20, 0)


@pytest.mark.parametrize(("first", "overdue"), [(NOW - 501, 1), (NOW - 500, 0), (0, 0)])
def test_the_age_of_dirty_records_can_make_a_log_due(first: int, overdue: int) -> None:
    rules = CompactionRules(0.9, 0, 500)
    segments = [
        FakeSegment(0, 80),  # clean
        FakeSegment(100, 0),  # emptied by a cleaning: has no first record
        FakeSegment(200, 10, first=NOW),
        FakeSegment(300, 10, first=first),
        FakeSegment(400, 40),
    ]
    found = look(*segments, checkpoint=100, rules=rules)
    assert found.overdue_ms == overdue
    assert found.is_due(rules) == (overdue > 0)


def test_overdue_records_of_the_active_segment_wait_for_it_to_roll() -> None:
    rules = CompactionRules(0.0, 0, 500)
    found = look(FakeSegment(0, 10, first=1), checkpoint=0, rules=rules)
    assert not found.is_due(rules)


@pytest.mark.parametrize(
    ("checkpoint", "expected"),
    [(None, 20), (19, 20), (20, 20), (70, 70), (100, 100), (101, 20)],
)
def test_a_checkpoint_that_cannot_be_is_not_believed(checkpoint: int | None, expected: int) -> None:
    assert first_dirty_offset(LogState(checkpoint, 20, 90, 100)) == expected


def test_the_ratio_must_be_passed_and_the_dirtiest_log_is_first() -> None:
    def dirty(clean_bytes: int, dirty_bytes: int, overdue: int = 0) -> Cleanable:
        return Cleanable(0, 100, clean_bytes, dirty_bytes, overdue)

    assert not dirty(50, 50).is_due(RULES)
    assert dirty(50, 51).is_due(RULES)
    assert not dirty(0, 0, overdue=5).is_due(RULES)
    lazy = RULES._replace(min_dirty_ratio=0.99)
    assert filthiest([("a", dirty(50, 50), RULES), ("b", dirty(1, 50), lazy)]) is None
    found = filthiest(
        [
            ("a", dirty(50, 60), RULES),
            ("b", dirty(10, 90), RULES),
            ("c", dirty(1, 99), lazy),
            ("d", dirty(1, 99, overdue=1), lazy._replace(min_dirty_ratio=1.0)),
        ]
    )
    assert found is not None
    assert found[0] == "d"
