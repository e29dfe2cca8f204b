"""Which segments retention takes: as a table of pure decisions, and on a log."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from kavka.storage.retention import LogBounds, RetentionRules, deletable
from tests.unit.storage.log_support import Place, append, read_values, topic_config

NOW = 100_000


class Piece(NamedTuple):
    base_offset: int
    size: int
    largest_timestamp: int


# Three closed segments and the active one; offsets 0, 10, 20, 30 up to 40.
PIECES = (
    Piece(0, 100, 10_000),
    Piece(10, 200, 20_000),
    Piece(20, 300, 30_000),
    Piece(30, 400, 40_000),
)


def count(
    pieces: Sequence[Piece] = PIECES,
    *,
    ms: int = -1,
    size: int = -1,
    start: int = 0,
    high_watermark: int = 40,
    deletes: bool = True,
) -> int:
    bounds = LogBounds(start, high_watermark, 40)
    return len(deletable(pieces, RetentionRules(deletes, ms, size), bounds, NOW))


@pytest.mark.parametrize(
    ("ms", "gone"),
    [(-1, 0), (90_000, 0), (89_999, 1), (70_000, 2), (69_999, 3), (60_000, 3), (59_999, 4), (0, 4)],
)
def test_by_time(ms: int, gone: int) -> None:
    assert count(ms=ms) == gone


@pytest.mark.parametrize(
    ("size", "gone"),
    [(-1, 0), (1_001, 0), (1_000, 0), (901, 0), (900, 1), (700, 2), (401, 2), (400, 3), (0, 4)],
)
def test_by_size(size: int, gone: int) -> None:
    """A segment goes when what is left is still at least retention.bytes."""
    assert count(size=size) == gone


@pytest.mark.parametrize(("start", "gone"), [(0, 0), (9, 0), (10, 1), (29, 2), (30, 3), (40, 3)])
def test_by_start_offset(start: int, gone: int) -> None:
    """The active segment stays, whatever is deleted of it."""
    assert count(start=start) == gone
    assert count(start=start, deletes=False) == gone, "compacted topics too"


def test_time_and_size_add_up() -> None:
    assert count(ms=89_999, size=700) == 2
    assert count(ms=70_000, size=900) == 2
    assert count(ms=89_999, size=900, start=30) == 3


def test_compacted_topics_keep_by_time_and_size() -> None:
    assert count(ms=0, size=0, deletes=False) == 0


@pytest.mark.parametrize(("high_watermark", "gone"), [(9, 0), (10, 1), (39, 3), (40, 4)])
def test_nothing_at_or_past_the_high_watermark_goes(high_watermark: int, gone: int) -> None:
    assert count(ms=0, high_watermark=high_watermark) == gone
    assert count(size=0, high_watermark=high_watermark) == gone


def test_a_record_from_the_future_holds_all_that_follows() -> None:
    future = Piece(10, 200, NOW + 5_000)
    assert count((PIECES[0], future, *PIECES[2:]), ms=0) == 1


def test_an_empty_active_segment_stays() -> None:
    empty = Piece(30, 0, 40_000)
    assert count((*PIECES[:3], empty), ms=0, size=0) == 3
    assert count((empty,), ms=0, size=0) == 0


# -- on a log -------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(str(tmp_path / "orders-0"), segment_bytes=1_000, retention_ms=10_000)


def fill(place: Place) -> tuple:  # type: ignore[type-arg]
    log = place.open()
    for number in range(20):
        append(log, "x" * 150, timestamp=place.clock.wall_ms() + number * 100)
    assert [segment.base_offset for segment in log.segments] == [0, 4, 8, 12, 16]
    return log, read_values(log)


def test_old_segments_go_and_the_start_moves(place: Place) -> None:
    log, values = fill(place)
    size = log.size
    log.advance_high_watermark(20)
    place.clock.advance(10.3)
    assert not log.delete_old_segments(place.clock.wall_ms()), "the first has its last at 300 ms"
    place.clock.advance(0.4)
    deletions = log.delete_old_segments(place.clock.wall_ms())
    assert [(one.base_offset, one.next_offset) for one in deletions] == [(0, 4)]
    assert (log.log_start_offset, log.size) == (4, size - deletions[0].size)
    assert read_values(log) == {offset: values[offset] for offset in range(4, 20)}


def test_files_of_a_deleted_segment_wait_under_another_name(place: Place) -> None:
    log, _ = fill(place)
    log.advance_high_watermark(20)
    piece = log.read(0, 1 << 20, 20)
    before = bytes(piece.view())
    place.clock.advance(10.5)
    (deletion,) = log.delete_old_segments(place.clock.wall_ms())
    assert deletion.delay_ms == 60_000
    assert place.files(".deleted") == [
        "00000000000000000000.index.deleted",
        "00000000000000000000.log.deleted",
        "00000000000000000000.timeindex.deleted",
    ]
    deletion.run(place.fs)
    assert not place.files(".deleted")
    assert bytes(piece.view()) == before, "who was reading it goes on"
    deletion.run(place.fs)


def test_an_expired_active_segment_is_rolled_and_goes(place: Place) -> None:
    log, _ = fill(place)
    log.advance_high_watermark(20)
    place.clock.advance(60)
    assert len(log.delete_old_segments(place.clock.wall_ms())) == 5
    assert (log.log_start_offset, log.log_end_offset, log.size) == (20, 20, 0)
    assert not log.delete_old_segments(place.clock.wall_ms())
    assert append(log, "next").first_offset == 20


def test_a_restart_remembers_what_was_deleted(place: Place) -> None:
    log, values = fill(place)
    log.advance_high_watermark(20)
    place.clock.advance(10.5)
    log.delete_old_segments(place.clock.wall_ms())
    log.abandon()
    again = place.open(clean=False)
    assert again.log_start_offset == 4
    assert read_values(again) == {offset: values[offset] for offset in range(4, 20)}


def test_lower_retention_acts_at_the_next_check(place: Place) -> None:
    log, _ = fill(place)
    log.advance_high_watermark(20)
    place.clock.advance(5)
    assert not log.delete_old_segments(place.clock.wall_ms())
    log.update_config(topic_config(segment_bytes=1_000, retention_ms=4_000))
    assert log.delete_old_segments(place.clock.wall_ms())


def test_records_without_time_live_by_their_files(place: Place) -> None:
    log = place.open()
    append(log, "x", timestamp=-1)
    log.advance_high_watermark(1)
    written = place.fs.stat(log.segments.last.path)
    assert written is not None
    assert not log.delete_old_segments(written.mtime_ms + 10_000)
    assert log.delete_old_segments(written.mtime_ms + 10_001)


def test_snapshots_of_deleted_segments_go(place: Place) -> None:
    log, _ = fill(place)
    log.flush()
    log.advance_high_watermark(20)
    assert place.files(".snapshot")[0] == "00000000000000000004.snapshot"
    place.clock.advance(11.2)
    log.delete_old_segments(place.clock.wall_ms())
    assert log.log_start_offset == 12
    assert place.files(".snapshot") == [
        "00000000000000000012.snapshot",
        "00000000000000000016.snapshot",
    ]
